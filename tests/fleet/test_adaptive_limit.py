from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.fleet.adaptive_limit import (
    PROBE_GAIN,
    PROBE_MORE,
    SHARE,
    AdaptiveLimit,
    AdaptiveRule,
    MemoryBound,
)
from extproc.fleet.signals import Signals

RULE = AdaptiveRule(min_active=4, max_active=500)
SCRAPE_S = 0.1


class Machine:
    """A server of `places`, scraped ten times a second; clients refill it up to its limit, or to `most`."""

    def __init__(self, places: int, rule: AdaptiveRule = RULE) -> None:
        self.places = places
        self.limit = AdaptiveLimit(rule)
        self.now_s = 0.0
        self.rng = np.random.default_rng(1)

    def scrape(self, in_flight: int, running: float, kv_cache_fraction: float | None = 0.1) -> float:
        self.now_s += SCRAPE_S
        signals = Signals(running, in_flight - running, kv_cache_fraction)
        self.limit.scraped(signals, in_flight, self.now_s)
        return self.limit.limit

    def serve(self, time_s: float, most: int = 10_000) -> list[float]:
        """Return the limits, while as many requests run as there are places for."""
        limits = []
        for _ in range(round(time_s / SCRAPE_S)):
            in_flight = min(int(self.limit.limit), most)
            limits.append(self.scrape(in_flight, min(self.places, in_flight)))
        return limits

    def serve_bursts(self, time_s: float) -> list[float]:
        """Between 80 % of the limit and all of it; prompts wait for each other while the load grows."""
        limits = []
        for number in range(round(time_s / SCRAPE_S)):
            turn = number % 30 / 30
            limit = int(self.limit.limit)
            in_flight = round(limit * (0.8 + 0.2 * min(2 * turn, 2 - 2 * turn)))
            computing = float(self.rng.uniform(0.0, 0.4)) if turn < 0.5 else 0.0
            limits.append(self.scrape(in_flight, min(self.places, round(in_flight * (1 - computing)))))
        return limits


def settled(limits: list[float]) -> float:
    return float(np.median([int(limit) for limit in limits[len(limits) // 2 :]]))


@pytest.mark.parametrize("places", [4, 5, 8, 20, 64, 256])
def test_the_limit_settles_at_the_places_of_the_server(places: int) -> None:
    assert settled(Machine(places).serve(200)) == places


@pytest.mark.parametrize("places", [8, 20, 64, 256])
def test_prompts_that_wait_for_each_other_in_bursts_are_not_taken_for_a_lack_of_places(places: int) -> None:
    assert settled(Machine(places).serve_bursts(300)) == pytest.approx(places, rel=0.12)


@pytest.mark.parametrize("places", [8, 64])
def test_probing_lets_in_few_more_requests_than_there_are_places(places: int) -> None:
    machine = Machine(places)
    machine.serve(100)
    assert max(machine.serve(100)) == PROBE_GAIN * places + PROBE_MORE


def test_the_limit_follows_a_server_that_has_become_smaller_or_larger() -> None:
    machine = Machine(64)
    machine.serve(100)
    machine.places = 32
    assert settled(machine.serve(100)) == 32
    machine.places = 64
    assert settled(machine.serve(100)) == 64


def test_a_limit_that_the_load_does_not_come_near_stays_as_it_is() -> None:
    machine = Machine(64)
    before = machine.serve(100)[-1]
    machine.serve(600, most=40)
    assert machine.limit.limit == before


def test_a_long_queue_lowers_a_limit_that_the_load_does_not_come_near() -> None:
    assert settled(Machine(4, AdaptiveRule(4, 500)).serve(100, most=9)) == 4


def test_a_backend_that_always_reports_no_running_request_keeps_its_limit() -> None:
    machine = Machine(64)
    limits = [machine.scrape(int(machine.limit.limit), running=0) for _ in range(1000)]
    assert settled(limits) == RULE.start


def test_one_wrong_scrape_changes_nothing() -> None:
    machine = Machine(64)
    before = machine.serve(100)[-1]
    machine.limit.scraped(Signals(1e6, 1e6, 1.0), 64, machine.now_s)
    assert machine.limit.limit == before
    machine.limit.scraped(Signals(0, 0, 0.0), 64, machine.now_s)
    assert machine.limit.limit == before


def test_where_memory_is_short_the_limit_is_the_mean_that_fits_and_not_the_most_that_ever_ran() -> None:
    machine = Machine(256)
    limits = []
    for _ in range(3000):
        fits = float(machine.rng.normal(40, 6))
        in_flight = int(machine.limit.limit)
        running = round(min(fits, in_flight))
        limits.append(machine.scrape(in_flight, running, kv_cache_fraction=min(1.0, running / fits)))
    assert settled(limits) == pytest.approx(40, rel=0.15)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e9),
            st.floats(0, 1e9),
            st.none() | st.floats(0, 1),
            st.integers(0, 600),
            st.floats(0, 100),
        ),
        max_size=300,
    )
)
@settings(max_examples=50, deadline=None)
def test_whatever_scrapes_say_the_limit_stays_within_its_bounds(scrapes) -> None:
    limit, now_s = AdaptiveLimit(RULE), 0.0
    for running, waiting, kv_cache_fraction, own, step_s in scrapes:
        now_s += step_s
        limit.scraped(Signals(running, waiting, kv_cache_fraction), own, now_s)
        assert RULE.min_active <= limit.limit <= RULE.max_active


def after(seconds: float, signals: Signals, *, is_fair: bool = True) -> MemoryBound:
    bound = MemoryBound()
    for _ in range(round(seconds / 0.1)):
        bound.scraped(signals, is_fair, 0.1)
    return bound


@pytest.mark.parametrize("running", [10, 20, 30])
def test_the_number_that_fits_in_is_known_before_the_memory_is_full(running: int) -> None:
    assert after(10, Signals(running, 0, running / 40)).requests == pytest.approx(SHARE * 40)


def test_few_requests_at_low_load_predict_nothing() -> None:
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
