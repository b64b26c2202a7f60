from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.build import a_backend, scrape

from extproc.adapters.vllm.scrape_budget import MAX_CORES, MAX_PER_S, ScrapeBudget, fair_factor, need_of
from extproc.fleet.signals import ScrapeRule

RULE = ScrapeRule(busy_interval_s=0.1, idle_interval_s=1.0)
NEEDS = st.lists(st.just(0.0) | st.floats(1.0, 1000.0), min_size=1, max_size=300)


def asked_per_s(budget: ScrapeBudget, needs: list[float]) -> list[float]:
    return [1.0 / budget.interval_s(need) for need in needs]


def test_a_fleet_within_the_budget_is_asked_as_it_is_configured() -> None:
    budget = ScrapeBudget(RULE, 150.0)
    budget.review([5.0] * 10 + [0.0] * 40, 0.0)
    assert budget.interval_s(5.0) == pytest.approx(RULE.busy_interval_s)
    assert budget.interval_s(0.0) == RULE.idle_interval_s


@given(NEEDS, st.floats(1.0, MAX_PER_S))
def test_all_together_are_asked_no_more_than_the_budget_and_waste_none_of_it(
    needs: list[float], max_per_s: float
) -> None:
    budget = ScrapeBudget(RULE, max_per_s)
    budget.review(needs, 0.0)
    total_per_s = sum(asked_per_s(budget, needs))
    wanted_per_s = sum(10.0 if need else 1.0 for need in needs)
    assert total_per_s == pytest.approx(min(wanted_per_s, max_per_s))


@given(NEEDS, st.floats(1.0, MAX_PER_S))
def test_the_more_a_scrape_is_needed_the_more_often_it_comes(needs: list[float], max_per_s: float) -> None:
    budget = ScrapeBudget(RULE, max_per_s)
    budget.review(needs, 0.0)
    per_s = asked_per_s(budget, sorted(needs))
    assert all(less <= more * (1 + 1e-9) for less, more in pairwise(per_s))


def test_a_crowded_backend_is_asked_in_proportion_to_what_is_in_flight() -> None:
    budget = ScrapeBudget(RULE, 200.0)
    needs = [30.0] * 10 + [3.0] * 90
    budget.review(needs, 0.0)
    many, few = budget.interval_s(30.0), budget.interval_s(3.0)
    assert (1 / many - 1) / (1 / few - 1) == pytest.approx(10.0)


def test_scrapes_that_cost_more_are_fewer() -> None:
    budget = ScrapeBudget(RULE)
    assert budget.per_s == MAX_PER_S
    for _ in range(1000):
        budget.spend(1e-3)
    assert budget.per_s < MAX_CORES / 1e-3
    for _ in range(1000):
        budget.spend(1e-5)
    assert budget.per_s == MAX_PER_S


def test_without_needs_there_is_nothing_to_cut() -> None:
    assert fair_factor([], 0.0) == inf


@given(st.lists(st.floats(0.0, 0.01), min_size=1, max_size=500))
def test_questions_at_any_moments_keep_within_the_budget(gaps_s: list[float]) -> None:
    """Whatever the shares of a moment ago allow: a thousand backends may become busy at once."""
    budget, now_s, asked_at_s = ScrapeBudget(RULE, 100.0), 0.0, []
    for gap_s in gaps_s:
        now_s += gap_s
        asked_at_s.append(now_s + budget.delay_s(now_s))
    for first, last in ((0, len(asked_at_s) - 1), (len(asked_at_s) // 2, len(asked_at_s) - 1)):
        assert last - first <= 100.0 * (asked_at_s[last] - asked_at_s[first] + 0.002) + 1 + 1e-6


def test_need_grows_with_what_is_in_flight_and_with_doubt() -> None:
    backend = a_backend()
    assert need_of(backend) == 0.0
    backend.reserve(0.0)
    starting = need_of(backend)
    assert starting > 1.0
    scrape(backend, 9.0, 0.0, own_when_asked=1, now_s=0.1)
    assert need_of(backend) == starting + 8.0, "requests of others are seen in scrapes alone"
