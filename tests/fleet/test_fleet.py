from dataclasses import replace
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.fleet.breaker import BreakerRule
from extproc.fleet.fleet import Fleet, FleetRules
from extproc.fleet.pace import Answered
from extproc.fleet.saturation import SaturationRule
from extproc.fleet.signals import Signals
from extproc.fleet.view import Candidate, FleetView
from extproc.fleet.waiting_time import WaitingRule

RULES = FleetRules(
    saturation=SaturationRule(max_active=10, resume_load=8),
    breaker=BreakerRule(consecutive_failures=3, min_pause_s=1.0, max_pause_s=8.0, probe_timeout_s=5.0),
    stale_after_s=2.0,
    low_s=1.0,
    medium_load=4.0,
)


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet(RULES)
    fleet.join(0, None)
    return fleet


def look(fleet: Fleet, now_s: float) -> FleetView:
    return fleet.view([0], now_s)


def known(fleet: Fleet, now_s: float) -> Candidate:
    return look(fleet, now_s).candidate(0)


def has_room(fleet: Fleet, now_s: float) -> bool:
    return look(fleet, now_s).has_room(0)


def is_admitting(fleet: Fleet, now_s: float) -> bool:
    return look(fleet, now_s).admitting() == [0]


def test_a_reservation_counts_at_once_and_a_release_gives_it_back(fleet: Fleet) -> None:
    fleet.reserve(0, 1.0)
    assert known(fleet, 1.0).load == 1.0
    fleet.release(0, 2.0)
    assert known(fleet, 2.0).load == 0.0


def test_foreign_load_is_seen_and_expires_with_the_scrape(fleet: Fleet) -> None:
    fleet.scraped(0, Signals(running=5, waiting=2), own_when_asked=0, now_s=10.0)
    assert known(fleet, 11.0).foreign == 7.0
    assert known(fleet, 12.1).load == 0.0
    assert not look(fleet, 12.1).is_fresh(0)


def test_several_routers_see_each_others_requests(fleet: Fleet) -> None:
    for _ in range(3):
        fleet.reserve(0, 5.0)
    fleet.scraped(0, Signals(running=8, waiting=0), own_when_asked=3, now_s=10.0)
    seen = known(fleet, 10.0)
    assert (seen.own, seen.foreign, seen.load) == (3.0, 5.0, 8.0)


def test_a_request_that_has_just_ended_is_not_taken_for_a_strangers(fleet: Fleet) -> None:
    for _ in range(6):
        fleet.reserve(0, 5.0)
    for _ in range(6):
        fleet.release(0, 9.8)
    fleet.scraped(0, Signals(running=6, waiting=0), own_when_asked=0, now_s=10.0)
    assert known(fleet, 10.0).foreign == 0.0


def test_within_a_burst_the_running_estimate_does_not_trust_an_idle_gauge(fleet: Fleet) -> None:
    fleet.scraped(0, Signals(running=0, waiting=0), own_when_asked=0, now_s=10.0)
    for _ in range(7):
        fleet.reserve(0, 10.05)
    assert known(fleet, 10.1).num_running == 7.0


def test_after_a_burst_the_running_estimate_falls_before_the_gauge_does(fleet: Fleet) -> None:
    for _ in range(7):
        fleet.reserve(0, 8.0)
    fleet.scraped(0, Signals(running=7, waiting=0), own_when_asked=7, now_s=10.0)
    for _ in range(5):
        fleet.release(0, 10.05)
    assert known(fleet, 10.1).num_running == 2.0


def test_a_lying_gauge_does_not_hide_our_own_requests(fleet: Fleet) -> None:
    for _ in range(5):
        fleet.reserve(0, 5.0)
    fleet.scraped(0, Signals(running=0, waiting=0), own_when_asked=5, now_s=10.0)
    seen = known(fleet, 10.0)
    assert (seen.load, seen.num_running) == (5.0, 5.0)


def test_a_configured_limit_bounds_the_running_estimate() -> None:
    fleet = Fleet(RULES)
    fleet.join(0, running_limit=2)
    for _ in range(5):
        fleet.reserve(0, 1.0)
    assert known(fleet, 1.0).num_running == 2.0


def test_requests_stuck_before_the_engine_reveal_its_limit(fleet: Fleet) -> None:
    for _ in range(9):
        fleet.reserve(0, 5.0)
    fleet.scraped(0, Signals(running=4, waiting=0), own_when_asked=9, now_s=10.0)
    for _ in range(2):
        fleet.release(0, 10.1)
        fleet.reserve(0, 10.1)
    fleet.scraped(0, Signals(running=4, waiting=0), own_when_asked=9, now_s=10.2)
    for _ in range(5):
        fleet.release(0, 10.3)
    fleet.scraped(0, Signals(running=4, waiting=0), own_when_asked=4, now_s=12.0)
    for _ in range(5):
        fleet.reserve(0, 12.0)
    assert known(fleet, 12.0).num_running == 4.0


def test_a_backend_without_a_limit_is_taken_to_have_as_many_places_as_any(fleet: Fleet) -> None:
    fleet.join(1, 4)
    fleet.scraped(0, Signals(running=2, waiting=0), own_when_asked=0, now_s=10.0)
    assert fleet.states[0].places == inf
    fleet.scraped(1, Signals(running=2, waiting=0), own_when_asked=0, now_s=10.0)
    fleet.scraped(0, Signals(running=2, waiting=0), own_when_asked=0, now_s=10.1)
    assert (fleet.states[0].places, fleet.states[0].running_limit) == (4, inf)
    fleet.scraped(0, Signals(running=9, waiting=0), own_when_asked=0, now_s=10.2)
    assert fleet.states[0].places == 9


def test_a_saturated_backend_comes_back_only_at_the_resume_load(fleet: Fleet) -> None:
    for _ in range(10):
        fleet.reserve(0, 1.0)
    assert not has_room(fleet, 1.0)
    fleet.release(0, 1.1)
    assert not has_room(fleet, 1.1)
    fleet.release(0, 1.2)
    assert has_room(fleet, 1.2)


def test_foreign_load_saturates_too(fleet: Fleet) -> None:
    fleet.scraped(0, Signals(running=9, waiting=5), own_when_asked=0, now_s=10.0)
    assert not has_room(fleet, 10.0)


def test_a_latched_backend_with_little_load_is_back_at_once(fleet: Fleet) -> None:
    fleet.latch_saturated(0)
    assert has_room(fleet, 1.0)


TURN_S = 0.25


@pytest.fixture
def queueing() -> Fleet:
    """Four of a backend's places are taken and five requests wait, for 0.25 s each; that lasts for 20 s."""
    fleet = Fleet(replace(RULES, saturation=SaturationRule(100, 80), waiting=WaitingRule(5.0, 0.2)))
    fleet.join(0, 4)
    for number in range(9):
        fleet.reserve(0, number / 10)
    for second in range(21):
        scrape(fleet, running=4, waiting=5, now_s=float(second))
        for _ in range(50):
            fleet.paced(0, Answered(8.0, 100.0, 0.02 + 5 * TURN_S, 1.0), float(second))
    scrape(fleet, running=4, waiting=5, now_s=20.0)
    return fleet


def scrape(fleet: Fleet, running: int, waiting: int, now_s: float) -> None:
    fleet.scraped(0, Signals(running, waiting), fleet.states[0].own, now_s)


def end(fleet: Fleet, requests: int, now_s: float) -> None:
    for _ in range(requests):
        fleet.release(0, now_s)


def test_no_request_joins_a_queue_that_stands_where_it_would_wait_too_long(queueing: Fleet) -> None:
    assert not has_room(queueing, 20.0), "the sixth in the queue would wait for longer than a second"
    end(queueing, 2, 20.0)
    assert has_room(queueing, 20.0), "its turn comes in time: the sidecar need not ask the server to know"
    queueing.reserve(0, 20.0)
    assert not has_room(queueing, 20.0)


def test_whoever_is_believed_to_be_slow_gets_requests_as_soon_as_nobody_waits_there(
    queueing: Fleet,
) -> None:
    for _ in range(100):
        queueing.paced(0, Answered(8.0, 100.0, 500.0, 1.0), 20.0)
    assert queueing.states[0].pace.turn_s > 5.0
    end(queueing, 4, 20.0)
    scrape(queueing, running=4, waiting=1, now_s=20.1)
    assert not has_room(queueing, 20.1)
    end(queueing, 1, 20.1)
    scrape(queueing, running=4, waiting=0, now_s=20.2)
    assert has_room(queueing, 20.2), "it is still believed to be slow, but a place may be free"


def test_where_fewer_are_in_flight_than_were_seen_to_run_a_place_is_free_whatever_waits(
    queueing: Fleet,
) -> None:
    for _ in range(100):
        queueing.paced(0, Answered(8.0, 100.0, 500.0, 1.0), 20.0)
    end(queueing, 6, 20.0)
    for tenth in range(1, 11):
        scrape(queueing, running=2, waiting=1, now_s=20.0 + tenth / 10)
    assert has_room(queueing, 21.0), "the one that waits may be stuck for a reason of its own"
    queueing.reserve(0, 21.0)
    assert not has_room(queueing, 21.0)


def test_a_queue_that_stood_is_no_reason_once_the_scrape_is_stale(queueing: Fleet) -> None:
    queueing.release(0, 22.5)
    assert has_room(queueing, 22.5)


def test_a_queue_where_nothing_was_ever_seen_to_run_is_no_reason_either_once_scrapes_stop(
    fleet: Fleet,
) -> None:
    for second in range(20):
        fleet.paced(0, Answered(0.0, 100.0, 3.0, 500.0), float(second))
        scrape(fleet, running=0, waiting=5, now_s=float(second))
    assert fleet.states[0].pace.turn_s > 5.0, "the wait of one alone is too long"
    assert not has_room(fleet, 19.0)
    assert has_room(fleet, 60.0), "it has none of ours, so that nothing but a request can tell more"


def test_a_queue_before_a_pause_without_scrapes_has_not_been_standing_since(queueing: Fleet) -> None:
    scrape(queueing, running=4, waiting=5, now_s=60.0)
    assert has_room(queueing, 60.0)


def test_a_queue_can_be_judged_where_answers_end_with_their_first_token(fleet: Fleet) -> None:
    for hundredth in range(2000):
        fleet.paced(0, Answered(0.0, 8000.0, 0.1, 0.0), hundredth / 100)
    assert fleet.states[0].pace.base_s == 0.0, "long prompts explain all of the time, and nothing is left"
    for tenth in range(20):
        scrape(fleet, running=4, waiting=5, now_s=20.0 + tenth / 10)
    assert has_room(fleet, 22.0)


def test_strangers_in_the_queue_count_too(queueing: Fleet) -> None:
    end(queueing, 9, 20.0)
    for tenth in range(1, 16):
        scrape(queueing, running=4, waiting=5, now_s=20.0 + tenth / 10)
    assert known(queueing, 21.5).foreign == 9.0
    assert not has_room(queueing, 21.5)


def test_refused_scrapes_trip_the_breaker_and_a_good_one_allows_a_probe(fleet: Fleet) -> None:
    for _ in range(3):
        fleet.scrape_refused(0, 10.0)
    assert not is_admitting(fleet, 10.5)
    fleet.scraped(0, Signals(0, 0), own_when_asked=0, now_s=10.5)
    assert is_admitting(fleet, 10.5)


def test_good_scrapes_do_not_shorten_the_pause_of_a_backend_that_fails_its_requests(fleet: Fleet) -> None:
    fleet.scraped(0, Signals(0, 0), own_when_asked=0, now_s=9.9)
    for _ in range(3):
        fleet.breakers.fail(0, 10.0)
    fleet.scraped(0, Signals(0, 0), own_when_asked=0, now_s=10.1)
    assert not is_admitting(fleet, 10.2)


def test_a_backend_that_takes_a_used_slot_starts_afresh(fleet: Fleet) -> None:
    fleet.scraped(0, Signals(9, 9, 0.9), own_when_asked=0, now_s=10.0)
    fleet.observed(0, load=1.0, ttft_s=3.0)
    for _ in range(3):
        fleet.breakers.fail(0, 10.0)
    fleet.join(0, None)
    assert (known(fleet, 10.0).load, fleet.states[0].medium_load) == (0.0, 4.0)
    assert is_admitting(fleet, 10.0)


def test_a_models_boundary_is_used_until_a_backend_has_shown_its_own(fleet: Fleet) -> None:
    fleet.join(1, None)
    fleet.observed(1, load=1.0, ttft_s=0.1)
    fleet.expect_medium_load(30.0)
    assert [fleet.states[slot].medium_load for slot in (0, 1)] == [30.0, 4.0]


def test_looking_changes_nothing(fleet: Fleet) -> None:
    fleet.scraped(0, Signals(5, 2), own_when_asked=0, now_s=10.0)
    assert known(fleet, 10.5) == known(fleet, 10.5)


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.just("reserve"),
            st.just("release"),
            st.tuples(st.integers(0, 40), st.integers(0, 40)),
        ),
        max_size=60,
    )
)
def test_load_and_estimate_stay_within_what_is_known(steps: list[str | tuple[int, int]]) -> None:
    fleet = Fleet(RULES)
    fleet.join(0, None)
    own, now_s = 0, 0.0
    for step in steps:
        now_s += 0.05
        if isinstance(step, tuple):
            fleet.scraped(0, Signals(*step), own_when_asked=own, now_s=now_s)
        elif step == "reserve":
            fleet.reserve(0, now_s)
            own += 1
        elif own:
            fleet.release(0, now_s)
            own -= 1
        seen = known(fleet, now_s)
        assert seen.own == own
        assert seen.load >= own
        assert seen.foreign >= 0.0
        assert 0.0 <= seen.num_running <= max(seen.load, fleet.states[0].running + own)


def test_prompts_that_were_sent_delay_the_next_until_they_are_computed(fleet: Fleet) -> None:
    before_s = look(fleet, 1.0).expected_s([0], 0.0)[0]
    fleet.reserve(0, 1.0, prompt_tokens=5000)
    fleet.release(0, 1.0)
    backlog_s = 5000 * fleet.states[0].pace.token_s
    assert look(fleet, 1.0).expected_s([0], 0.0)[0] == pytest.approx(before_s + backlog_s)
    assert look(fleet, 1.0 + backlog_s).expected_s([0], 0.0)[0] == pytest.approx(before_s)


def test_a_new_backend_is_taken_to_be_like_the_fleet_and_knows_nothing_of_its_predecessor(
    fleet: Fleet,
) -> None:
    fleet.join(1, None)
    for second in range(50):
        fleet.paced(0, Answered(1.0, 100.0, 0.5, 1.0), float(second))
        fleet.paced(1, Answered(1.0, 100.0, 2.5, 1.0), float(second))
    assert fleet.states[0].pace.base_s < 0.6
    assert fleet.states[1].pace.base_s > 2.0
    fleet.join(1, None)
    assert 1.0 < fleet.states[1].pace.base_s < 2.0
    fleet.paced(1, Answered(1.0, 100.0, 0.1, 1.0), 50.0)
    assert fleet.states[1].pace.base_s < 1.5


def test_a_backend_that_hangs_with_requests_of_ours_fails_where_another_answers(fleet: Fleet) -> None:
    fleet.join(1, None)
    fleet.reserve(0, 9.0)
    for _ in range(3):
        fleet.scrape_hung(0, 10.0)
    assert is_admitting(fleet, 10.0), "perhaps it is we who cannot reach anybody"
    fleet.scraped(1, Signals(0, 0), own_when_asked=0, now_s=9.5)
    for _ in range(3):
        fleet.scrape_hung(0, 10.0)
    assert not is_admitting(fleet, 10.0)
    fleet.scraped(0, Signals(1, 0), own_when_asked=1, now_s=10.5)
    assert is_admitting(fleet, 10.5), "a probe, as soon as it answers"


def test_a_backend_that_hangs_without_requests_of_ours_is_left_alone(fleet: Fleet) -> None:
    fleet.join(1, None)
    fleet.scraped(1, Signals(0, 0), own_when_asked=0, now_s=9.5)
    for _ in range(9):
        fleet.scrape_hung(0, 10.0)
    assert is_admitting(fleet, 10.0)
