import numpy as np
import pytest

from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES
from extproc.learning.log_line_fit import backend_offsets, fit_linear

N = 900


@pytest.fixture(scope="module")
def power_law() -> Observations:
    """TTFT = 0.02 s x (1 + load), three times as much on the last of three backends; a fourth is unused."""
    rng = np.random.default_rng(4)
    features = np.zeros((N, len(FEATURES)))
    features[:, FEATURES.index("load")] = rng.integers(10, 90, N)
    backend = rng.integers(3, size=N)
    slowness = np.array([1.0, 1.0, 3.0])[backend]
    ttft_s = 0.02 * slowness * (1 + features[:, FEATURES.index("load")])
    return Observations(np.arange(1.0, N + 1), features, ttft_s, backend, ("a", "b", "c", "unused"))


def test_a_power_law_is_found_whole(power_law: Observations) -> None:
    straight = fit_linear(power_law)
    line = straight.line
    assert line.weights == pytest.approx([float(name == "load") for name in FEATURES], abs=1e-3)
    assert line.level == pytest.approx(np.log(0.02), abs=1e-2)
    assert straight.offsets == pytest.approx([0.0, 0.0, np.log(3.0), 0.0], abs=0.05)
    on_the_middle_backend = power_law.backend < 2
    predicted = line.predict(power_law.features)[on_the_middle_backend]
    np.testing.assert_allclose(predicted, np.log(power_law.ttft_s[on_the_middle_backend]), atol=2e-3)


def test_offsets_are_against_the_middle_backend_and_doubt_few_samples(power_law: Observations) -> None:
    few = power_law.take(np.r_[:20])
    residual = np.where(few.backend == 2, 1.0, 0.0)
    count = int((few.backend == 2).sum())
    assert backend_offsets(few, residual)[2] == pytest.approx(count / (count + 10))


def test_what_varies_with_the_backend_alone_is_not_told_from_it(power_law: Observations) -> None:
    features = power_law.features.copy()
    features[:, FEATURES.index("num_running")] = np.array([2.0, 2.0, 4.0])[power_law.backend]
    confounded = Observations(power_law.at_s, features, power_law.ttft_s, power_law.backend, power_law.fleet)
    line = fit_linear(confounded).line
    assert line.weights[FEATURES.index("num_running")] < 2.5, (
        "the bound of 5 would be as good, but for the penalty"
    )
