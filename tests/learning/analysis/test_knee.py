import numpy as np
import pytest
from support.observed import observed

from extproc.learning.analysis.knee import Knee, knee_of
from extproc.learning.dataset import Observations
from extproc.learning.features import DEFAULT_ZONE


def queue(knee: float, largest: int, count: int, seed: int = 1) -> Observations:
    """0.2 s and a little for each request, and half a second for each beyond the knee."""
    rng = np.random.default_rng(seed)
    load = rng.integers(0, largest, count).astype(float)
    ttft_s = 0.2 + 0.01 * load + 0.5 * np.maximum(load - knee, 0)
    return observed(ttft_s * np.exp(rng.normal(0, 0.15, count)), load=load)


def knee_in(observations: Observations, limit_s: float = 5.0) -> Knee:
    return knee_of(observations, DEFAULT_ZONE, limit_s, "vllm-1", np.random.default_rng(0))


def test_the_knee_and_what_lies_around_it_are_stated() -> None:
    knee = knee_in(queue(knee=40, largest=120, count=2000))
    assert knee.unstated is None
    assert knee.load == pytest.approx(40, abs=2)
    assert knee.slope_after_s == pytest.approx(0.51, rel=0.05)
    assert knee.ttft_at_knee_s == pytest.approx(0.6, abs=0.3)
    assert knee.load_at_limit == pytest.approx(48.6, abs=1.5)


def test_the_interval_holds_the_true_knee_most_of_the_time() -> None:
    knees = [knee_in(queue(knee=40, largest=120, count=400, seed=seed)) for seed in range(6)]
    held = [knee.low is not None and knee.high is not None and knee.low <= 40 <= knee.high for knee in knees]
    assert sum(held) >= 5
    assert all(knee.low is not None and knee.high is not None and knee.high - knee.low < 15 for knee in knees)


def test_a_limit_beyond_all_that_was_seen_has_no_load() -> None:
    assert knee_in(queue(knee=40, largest=120, count=2000), limit_s=300.0).load_at_limit is None


def test_the_same_samples_and_generator_give_the_same_knee() -> None:
    assert knee_in(queue(40, 120, 500)) == knee_in(queue(40, 120, 500))


@pytest.mark.parametrize(
    ("observations", "reason"),
    [
        (queue(40, 120, 99), "too few samples: 99"),
        (queue(40, 40, 3000), "never saturated"),
        (observed(np.full(500, 30.0), load=np.arange(500) % 4), "too few different loads"),
        (observed(0.1 + 0.2 * np.arange(300.0), load=np.arange(300.0)), "TTFT grows nearly as fast"),
        (observed(0.1 + 0.001 * np.arange(300.0) ** 2, load=np.arange(300.0)), "TTFT grows smoothly"),
        (observed(np.linspace(30, 2, 300), load=np.arange(300.0)), "TTFT does not grow with load"),
    ],
    ids=["few", "idle", "one load", "straight", "parabola", "falling"],
)
def test_without_a_knee_the_reason_is_stated(observations: Observations, reason: str) -> None:
    knee = knee_in(observations)
    assert knee.load is None
    assert knee.unstated is not None
    assert knee.unstated.startswith(reason)


def test_a_ttft_that_has_nothing_to_do_with_load_has_no_knee() -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        noise = observed(rng.lognormal(1, 1.5, 600), load=rng.integers(0, 60, 600))
        assert knee_in(noise).load is None
