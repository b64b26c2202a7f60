from math import inf

import pytest

from extproc.fleet.memory_bound import SHARE, MemoryBound
from extproc.fleet.signals import Signals


def after(seconds: float, signals: Signals, *, is_fair: bool = True) -> MemoryBound:
    bound = MemoryBound()
    for _ in range(round(seconds / 0.1)):
        bound.scraped(signals, is_fair, 0.1)
    return bound


@pytest.mark.parametrize("running", [10, 20, 30])
def test_the_number_that_fits_in_is_known_before_the_memory_is_full(running: int) -> None:
    assert after(10, Signals(running, 0, running / 40)).requests == pytest.approx(SHARE * 40)


def test_few_requests_at_low_load_foretell_nothing() -> None:
    assert after(60, Signals(1, 0, 0.9), is_fair=False).requests == inf
    assert after(60, Signals(1, 3, 0.5), is_fair=False).requests == inf


def test_the_memory_counts_as_full_at_the_fraction_at_which_requests_wait_for_it() -> None:
    bound = after(60, Signals(36, 4, 0.9), is_fair=False)
    assert bound.requests == pytest.approx(SHARE * 36)
    for _ in range(600):
        bound.scraped(Signals(20, 0, 0.5), True, 0.1)
    assert bound.requests == pytest.approx(SHARE * 36)


@pytest.mark.parametrize("fraction", [None, 0.0])
def test_a_server_that_does_not_report_its_memory_has_no_such_bound(fraction: float | None) -> None:
    assert after(60, Signals(30, 10, fraction)).requests == inf


def test_the_number_that_fits_in_changes_with_the_requests() -> None:
    bound = after(60, Signals(30, 10, 1.0))
    for _ in range(1200):
        bound.scraped(Signals(30, 0, 0.5), True, 0.1)
    assert bound.requests == pytest.approx(SHARE * 60, rel=0.02)
