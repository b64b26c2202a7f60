from itertools import pairwise

import numpy as np
import pytest

from extproc.lab.traffic.arrivals import Bursts, Curve, Daily, OpenLoopTraffic, Steady
from extproc.lab.traffic.workload import Fixed, Workload

LENGTHS = Workload(Fixed(100), Fixed(10))


def times_s(curve: Curve, rate: float = 20.0, duration_s: float = 600.0, seed: int = 0) -> np.ndarray:
    traffic = OpenLoopTraffic(curve, rate, duration_s, LENGTHS, 8192)
    return np.array([arrival.at_s for arrival in traffic.arrivals(np.random.default_rng(seed))])


@pytest.mark.parametrize("curve", [Steady(), Bursts(3.0, 30.0, 6.0), Daily(0.8, 300.0)])
def test_whatever_the_curve_the_mean_rate_is_kept_and_the_order_is_that_of_time(curve: Curve) -> None:
    at_s = times_s(curve)
    assert len(at_s) == pytest.approx(12_000, rel=0.03)
    assert all(earlier < later for earlier, later in pairwise(at_s))
    assert 0 < at_s[0] < at_s[-1] < 600
    assert np.mean(curve.at(np.linspace(0, 600, 60_001)[:-1])) == pytest.approx(1, rel=0.001)


def test_gaps_of_steady_arrivals_are_exponential() -> None:
    gaps_s = np.diff(times_s(Steady()))
    assert gaps_s.std() == pytest.approx(gaps_s.mean(), rel=0.05)


def test_bursts_have_their_height() -> None:
    at_s = times_s(Bursts(3.0, 30.0, 6.0))
    in_bursts = np.count_nonzero(at_s % 30 >= 24)
    assert in_bursts / (600 / 30 * 6) == pytest.approx(60, rel=0.05)


def test_the_day_begins_with_its_trough() -> None:
    at_s = times_s(Daily(0.8, 600.0))
    assert np.count_nonzero(at_s < 300) < 0.5 * np.count_nonzero(at_s >= 300)


def test_the_same_seed_gives_the_same_requests() -> None:
    assert (times_s(Steady(), seed=3) == times_s(Steady(), seed=3)).all()
    assert len(times_s(Steady(), seed=3)) != len(times_s(Steady(), seed=4))
