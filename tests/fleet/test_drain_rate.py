import pytest

from extproc.fleet.drain_rate import DrainRates


def test_a_steady_drain_is_measured() -> None:
    rates = DrainRates(1)
    for step in range(500):
        rates.finished(0, step * 0.1)
    assert rates.per_second(0, 50.0) == pytest.approx(10.0, rel=0.05)


def test_a_rate_fades_in_silence() -> None:
    rates = DrainRates(1)
    rates.finished(0, 0.0)
    assert rates.per_second(0, 100.0) < 1e-4


def test_nothing_finished_is_a_rate_of_zero() -> None:
    assert DrainRates(1).per_second(0, 5.0) == 0.0
