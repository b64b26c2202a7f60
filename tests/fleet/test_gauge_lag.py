from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.fleet.gauge_lag import AGES_S, USUAL_LAG_S, GaugeLag
from extproc.fleet.own_history import OwnHistory

SCRAPE_S = 0.1


def traffic(rng: np.random.Generator, seconds: float) -> Iterator[tuple[float, int]]:
    """Requests that come and end, twenty of each a second: when the number in flight changes, and to what."""
    now_s, own = 0.0, 0
    while (now_s := now_s + rng.exponential(1 / 40)) < seconds:
        own = max(0, own + (1 if rng.random() < 0.5 else -1))
        yield now_s, own


def learned_s(true_s: float, *, seconds: float = 60.0, others: float = 0.0, stuck: int = 0) -> float:
    """The age that is learned of gauges of this age, with so many changes a second by others."""
    rng = np.random.default_rng(1)
    lag, history, shown, foreign = GaugeLag(), OwnHistory(), OwnHistory(), 100
    changes = iter(traffic(rng, seconds))
    change = next(changes, None)
    for scrape in range(1, round(seconds / SCRAPE_S)):
        now_s = scrape * SCRAPE_S
        while change is not None and change[0] <= now_s:
            history.record(change[1], change[0])
            shown.record(max(0, change[1] - stuck), change[0])
            change = next(changes, None)
        foreign += int(rng.poisson(others * SCRAPE_S / 2)) - int(rng.poisson(others * SCRAPE_S / 2))
        lag.scraped(shown.own_at(now_s - true_s) + foreign, history, now_s)
    return lag.lag_s


@pytest.mark.parametrize("true_s", AGES_S[2::3])
def test_the_age_of_the_gauges_is_found_by_the_own_requests(true_s: float) -> None:
    assert learned_s(true_s) == pytest.approx(true_s, abs=0.01)


def test_requests_of_other_routers_hardly_disturb() -> None:
    assert learned_s(0.3, others=80.0) == pytest.approx(0.3, abs=0.051)


def test_requests_that_no_gauge_counts_do_not_disturb() -> None:
    assert learned_s(0.3, stuck=3) == pytest.approx(0.3, abs=0.051)


def test_without_traffic_nothing_is_learned() -> None:
    lag, history = GaugeLag(), OwnHistory()
    history.record(5, 0.0)
    for scrape in range(1000):
        lag.scraped(5 + scrape % 7, history, 10.0 + scrape * SCRAPE_S)
    assert lag.lag_s == USUAL_LAG_S


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 1000), st.floats(0, 1e6)), max_size=200))
def test_whatever_a_server_shows_the_age_is_a_possible_one(steps: list[tuple[float, int, float]]) -> None:
    lag, history, now_s = GaugeLag(), OwnHistory(), 0.0
    for elapsed_s, own, shown in steps:
        now_s += elapsed_s
        history.record(own, now_s)
        lag.scraped(shown, history, now_s)
        assert lag.lag_s in AGES_S
