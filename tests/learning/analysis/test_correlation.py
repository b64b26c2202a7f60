import numpy as np
import pytest
from support.observed import observed

from extproc.fleet.zone import Zone
from extproc.learning.analysis.correlation import MIN_SAMPLES, Correlation, Unstated, correlations
from extproc.learning.features import DEFAULT_ZONE


def found(zone: Zone, feature: str, every: tuple[Correlation, ...]) -> Correlation:
    [one] = [each for each in every if each.zone is zone and each.feature == feature]
    return one


def test_a_queue_correlates_with_load_and_not_with_what_is_drawn_at_random() -> None:
    rng = np.random.default_rng(0)
    load = rng.uniform(40, 100, 500)
    tokens = rng.uniform(1, 900, 500)
    every = correlations(observed(load / 3, load=load, input_tokens=tokens, num_running=32), DEFAULT_ZONE)
    with_load = found(Zone.SATURATED, "load", every)
    assert with_load.pearson is not None
    assert with_load.pearson.r == pytest.approx(1)
    assert with_load.pearson.low <= with_load.pearson.r <= with_load.pearson.high + 1e-9
    with_tokens = found(Zone.SATURATED, "input_tokens", every).pearson
    assert with_tokens is not None
    assert with_tokens.low < 0 < with_tokens.high
    assert with_tokens.p_value > 0.05
    running = found(Zone.SATURATED, "num_running", every)
    assert (running.pearson, running.spearman, running.unstated) == (None, None, Unstated.CONSTANT)


def test_a_rank_correlation_sees_what_is_not_linear() -> None:
    running = np.arange(100.0)
    one = found(
        Zone.MEDIUM,
        "num_running",
        correlations(observed(1 + (running / 99) ** 4, num_running=running), DEFAULT_ZONE),
    )
    assert one.pearson is not None
    assert one.spearman is not None
    assert one.spearman.r == pytest.approx(1)
    assert one.pearson.r < 0.9


def test_below_thirty_samples_nothing_is_stated() -> None:
    ttft_s = np.linspace(0.1, 0.9, MIN_SAMPLES - 1)
    one = found(Zone.LOW, "load", correlations(observed(ttft_s, load=ttft_s), DEFAULT_ZONE))
    assert (one.count, one.pearson, one.unstated) == (MIN_SAMPLES - 1, None, Unstated.TOO_FEW)


def test_the_interval_holds_the_true_correlation_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        x = rng.normal(0, 1, 60)
        y = 0.6 * x + 0.8 * rng.normal(0, 1, 60)
        one = found(Zone.MEDIUM, "load", correlations(observed(5 + y / 2, load=20 + x), DEFAULT_ZONE)).pearson
        assert one is not None
        held += one.low <= 0.6 <= one.high
    assert 0.9 < held / 300 < 0.99
