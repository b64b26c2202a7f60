from collections.abc import Sequence
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.build import FAILURES, a_backend, a_fleet, fleet_rules, reserve, scrape, view_of

from extproc.fleet.backend import Backend
from extproc.fleet.fleet import Fleet
from extproc.fleet.view import FleetView
from extproc.fleet.wait_terms import ExpectedWait

NOW_S = 100.0
RULES = fleet_rules(max_active=10, resume_load=8)


def backends(*loads: int) -> list[Backend]:
    """Backends with this many of our requests each."""
    result = [a_backend(RULES, number=number) for number in range(1, len(loads) + 1)]
    for backend, load in zip(result, loads, strict=True):
        reserve(backend, load, NOW_S)
    return result


def trip(backend: Backend) -> None:
    for _ in range(FAILURES):
        backend.breaker.fail(NOW_S)


def look(members: Sequence[Backend]) -> FleetView:
    return view_of(members, NOW_S)


def test_looking_changes_nothing() -> None:
    (one,) = backends(3)
    scrape(one, running=5, waiting=2, now_s=NOW_S - 0.5)
    assert look([one]).facts(one) == look([one]).facts(one)


def test_the_fleet_decides_when_a_scrape_is_stale() -> None:
    fleet: Fleet = a_fleet(1, RULES)
    (one,) = fleet.backends
    scrape(one, running=5, now_s=10.0)
    assert fleet.view(fleet.backends, 12.0).is_fresh(one)
    assert not fleet.view(fleet.backends, 12.1).is_fresh(one)


def test_a_backend_is_alive_while_its_scrapes_are_answered() -> None:
    one, two, three = backends(0, 0, 0)
    scrape(one, now_s=NOW_S)
    scrape(two, now_s=NOW_S)
    two.scrape_refused(NOW_S)
    scrape(three, now_s=NOW_S - 9.0)
    view = look([one, two, three])
    assert [view.is_alive(each) for each in (one, two, three)] == [True, False, False]


def test_only_failing_backends_do_not_admit() -> None:
    failing, full, good = backends(0, 10, 3)
    trip(failing)
    assert list(look([failing, full, good]).admitting().backends) == [full, good]


def test_a_view_in_which_all_admit_is_not_made_again() -> None:
    view = look(backends(1, 2))
    assert view.admitting() is view


def test_a_narrowed_view_still_knows_the_cached_tokens_and_which_scrapes_are_stale() -> None:
    one, two = backends(1, 2)
    scrape(one, running=7, now_s=NOW_S - 9.0)
    view = FleetView([one, two], NOW_S, NOW_S - 2.0, {one: 40.0}).narrowed([one])
    assert not view.is_fresh(one)
    assert view.facts(one).expected_cached_tokens == 40.0


def test_a_queue_that_closes_a_backend_is_no_limit() -> None:
    (one,) = backends(3)
    one.closed_above = 2.0
    view = look([one])
    assert not view.has_room(one)
    assert view.is_any_below_limit()
    one.limits.full_above = 2.0
    assert not look([one]).is_any_below_limit()


def test_a_backend_with_too_many_prompts_ahead_is_saturated_until_they_are_computed() -> None:
    (one,) = backends(1)
    one.expect_prompt("a long one", (one.longest_wait_s + 1.0) / one.pace.token_s, NOW_S)
    view = look([one])
    assert not view.has_room(one)
    assert view.facts(one).zone == "saturated"
    later = view_of([one], NOW_S + 1.5)
    assert later.has_room(one)


def test_the_zone_follows_the_estimate_and_a_full_backend_is_saturated_whatever_it_is() -> None:
    low, medium, saturated = backends(3, 4, 10)
    view = look([low, medium, saturated])
    estimates = (ExpectedWait(own_prompt_s=0.9), ExpectedWait(turns_s=1.0), ExpectedWait())
    zones = [view.facts(*each).zone for each in zip(view.backends, estimates, strict=True)]
    assert zones == ["low", "medium", "saturated"]


def test_before_the_first_scrape_no_age_and_an_empty_cache_are_recorded() -> None:
    (one,) = backends(0)
    facts = look([one]).facts(one)
    assert (facts.scrape_age_s, facts.kv_cache_fraction, facts.num_waiting) == (None, 0.0, 0.0)
    scrape(one, running=1, waiting=2, kv_cache_fraction=0.5, now_s=NOW_S - 0.25)
    facts = look([one]).facts(one)
    assert (facts.scrape_age_s, facts.kv_cache_fraction, facts.num_waiting) == (0.25, 0.5, 2.0)


_members = st.lists(
    st.builds(
        dict,
        own=st.integers(0, 20),
        foreign=st.sampled_from([0.0, 5.0]),
        scraped_at_s=st.sampled_from([-inf, NOW_S - 9.0, NOW_S - 0.1]),
        closed_above=st.sampled_from([-1.0, 9.0, inf]),
    ),
    min_size=1,
    max_size=6,
)


@given(_members, st.sets(st.integers(0, 5)))
def test_what_is_worked_out_for_all_at_once_is_what_each_one_would_get(
    members: list[dict[str, float]], failing: set[int]
) -> None:
    found = []
    for number, fields in enumerate(members):
        backend = a_backend(RULES, number=number)
        for name, value in fields.items():
            setattr(backend, name, value)
        if number in failing:
            trip(backend)
        found.append(backend)
    view = look(found)
    assert view.loads == pytest.approx([view.load(each) for each in found])
    admitting = [each for each in found if not each.breaker.is_tripped]
    assert list(view.admitting().backends) == admitting
