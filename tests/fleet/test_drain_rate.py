import pytest

from extproc.fleet.drain_rate import DrainRate


def test_a_steady_drain_is_measured() -> None:
    rate = DrainRate()
    for step in range(500):
        rate.finished(step * 0.1)
    assert rate.per_second(50.0) == pytest.approx(10.0, rel=0.05)


def test_a_rate_fades_in_silence() -> None:
    rate = DrainRate()
    rate.finished(0.0)
    assert rate.per_second(100.0) < 1e-4


def test_nothing_finished_is_a_rate_of_zero() -> None:
    assert DrainRate().per_second(5.0) == 0.0
