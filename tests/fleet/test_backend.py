from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.build import FAILURES, a_backend, fleet_rules, reserve, scrape, view_of

from extproc.fleet.backend import Backend
from extproc.fleet.engine_estimate import STEP_SHARE
from extproc.fleet.fleet_rules import WaitingRule
from extproc.fleet.pace import Answered
from extproc.fleet.signals import Signals
from extproc.fleet.view import CandidateFacts

MAX_ACTIVE = 10
RULES = fleet_rules(max_active=MAX_ACTIVE, resume_load=8)


@pytest.fixture
def backend() -> Backend:
    return a_backend(RULES)


def known(backend: Backend, now_s: float) -> CandidateFacts:
    return view_of([backend], now_s).facts(backend)


def has_room(backend: Backend, now_s: float) -> bool:
    return view_of([backend], now_s).has_room(backend)


def is_admitting(backend: Backend, now_s: float) -> bool:
    return backend.breaker.admits_at_s <= now_s


def release(backend: Backend, count: int, now_s: float) -> None:
    for _ in range(count):
        backend.release(now_s)


def pace(backend: Backend, ttft_s: float, now_s: float, count: int) -> None:
    """Report streams that met the queue of `queueing`, and had their first token after `ttft_s`."""
    for _ in range(count):
        backend.paced(
            Answered(load=8.0, new_tokens=100.0, ahead_tokens=0.0, ttft_s=ttft_s, decode_s=1.0), now_s
        )


def test_a_reservation_counts_at_once_and_a_release_gives_it_back(backend: Backend) -> None:
    backend.reserve(1.0)
    assert known(backend, 1.0).load == 1.0
    backend.release(2.0)
    assert known(backend, 2.0).load == 0.0
    assert backend.ended == 1


def test_a_request_that_envoy_sends_elsewhere_counts_there_and_has_not_ended(backend: Backend) -> None:
    other = a_backend(RULES, number=2)
    reserve(backend, 2, 1.0)
    backend.move_to(other, 1.5)
    assert (backend.own, other.own, backend.ended) == (1, 1, 0)
    assert backend.drain_rate.per_second(0, 1.5) == 0.0


def test_foreign_load_is_seen_and_expires_with_the_scrape(backend: Backend) -> None:
    scrape(backend, running=5, waiting=2, now_s=10.0)
    assert known(backend, 11.0).foreign == 7.0
    assert known(backend, 12.1).load == 0.0
    assert backend.is_fresh(12.0)
    assert not backend.is_fresh(12.1)


def test_several_routers_see_each_others_requests(backend: Backend) -> None:
    reserve(backend, 3, 5.0)
    scrape(backend, running=8, now_s=10.0)
    seen = known(backend, 10.0)
    assert (seen.own, seen.foreign, seen.load) == (3.0, 5.0, 8.0)


def test_a_request_that_has_just_ended_is_not_taken_for_foreign_load(backend: Backend) -> None:
    reserve(backend, 6, 5.0)
    release(backend, 6, 9.8)
    scrape(backend, running=6, now_s=10.0)
    assert known(backend, 10.0).foreign == 0.0


def test_within_a_burst_the_running_estimate_does_not_trust_an_idle_gauge(backend: Backend) -> None:
    scrape(backend, running=0, now_s=10.0)
    reserve(backend, 7, 10.05)
    assert known(backend, 10.1).num_running == 7.0


def test_after_a_burst_the_running_estimate_falls_before_the_gauge_does(backend: Backend) -> None:
    reserve(backend, 7, 8.0)
    scrape(backend, running=7, now_s=10.0)
    release(backend, 5, 10.05)
    assert known(backend, 10.1).num_running == 2.0


def test_a_request_that_ended_while_the_scrape_was_under_way_is_taken_off_the_gauge(backend: Backend) -> None:
    reserve(backend, 7, 8.0)
    release(backend, 1, 10.0)
    scrape(backend, running=7, own_when_asked=7, now_s=10.0)
    assert known(backend, 10.0).num_running == 6.0


def test_a_wrong_gauge_does_not_hide_our_own_requests(backend: Backend) -> None:
    reserve(backend, 5, 5.0)
    scrape(backend, running=0, now_s=10.0)
    seen = known(backend, 10.0)
    assert (seen.load, seen.num_running) == (5.0, 5.0)


def test_a_configured_limit_bounds_the_running_estimate() -> None:
    backend = a_backend(RULES, max_num_seqs=2)
    reserve(backend, 5, 1.0)
    assert known(backend, 1.0).num_running == 2.0


def test_requests_stuck_before_the_engine_reveal_its_limit(backend: Backend) -> None:
    reserve(backend, 9, 5.0)
    scrape(backend, running=4, now_s=10.0)
    for _ in range(2):
        backend.release(10.1)
        backend.reserve(10.1)
    scrape(backend, running=4, now_s=10.2)
    assert backend.places == 4.0
    release(backend, 5, 10.3)
    scrape(backend, running=4, now_s=12.0)
    reserve(backend, 5, 12.0)
    assert known(backend, 12.0).num_running == 4.0


def test_a_saturated_backend_comes_back_only_at_the_resume_load(backend: Backend) -> None:
    reserve(backend, MAX_ACTIVE, 1.0)
    assert not has_room(backend, 1.0)
    backend.release(1.1)
    assert not has_room(backend, 1.1)
    backend.release(1.2)
    assert has_room(backend, 1.2)


def test_foreign_load_saturates_too(backend: Backend) -> None:
    scrape(backend, running=9, waiting=5, now_s=10.0)
    assert not has_room(backend, 10.0)


TURN_S = 0.25


@pytest.fixture
def queueing() -> Backend:
    """All four places of a backend are taken and five requests wait, for 0.25 s each; that lasts for 20 s."""
    backend = a_backend(fleet_rules(max_active=100, resume_load=80), max_num_seqs=4)
    for number in range(9):
        backend.reserve(number / 10)
    for second in range(21):
        scrape(backend, running=4, waiting=5, now_s=float(second))
        pace(backend, 0.02 + 5 * TURN_S, float(second), count=50)
    scrape(backend, running=4, waiting=5, now_s=20.0)
    return backend


def test_a_request_does_not_join_a_queue_that_stands_where_it_would_wait_too_long(queueing: Backend) -> None:
    assert not has_room(queueing, 20.0), "the sixth in the queue would wait for longer than a second"
    release(queueing, 2, 20.0)
    assert has_room(queueing, 20.0), "its turn comes in time: the sidecar need not ask the server to know"
    queueing.reserve(20.0)
    assert not has_room(queueing, 20.0)


def test_a_backend_that_is_believed_to_be_slow_gets_requests_as_soon_as_its_queue_is_empty(
    queueing: Backend,
) -> None:
    pace(queueing, 500.0, 20.0, count=100)
    assert queueing.pace.turn_s > 5.0
    release(queueing, 4, 20.0)
    scrape(queueing, running=4, waiting=1, now_s=20.1)
    assert not has_room(queueing, 20.1)
    scrape(queueing, running=4, waiting=0, now_s=20.2)
    assert not has_room(queueing, 20.2), "all its places are taken: one more would wait, as far as is known"
    release(queueing, 2, 20.2)
    scrape(queueing, running=3, waiting=0, now_s=20.3)
    assert has_room(queueing, 20.3), "it is still believed to be slow, but a place is free"


def test_with_fewer_in_flight_than_were_seen_to_run_a_place_is_free_in_spite_of_a_queue(
    queueing: Backend,
) -> None:
    pace(queueing, 500.0, 20.0, count=100)
    release(queueing, 6, 20.0)
    for tenth in range(1, 11):
        scrape(queueing, running=2, waiting=1, now_s=20.0 + tenth / 10)
    assert has_room(queueing, 21.0), "the one that waits may be stuck for a reason of its own"
    queueing.reserve(21.0)
    assert not has_room(queueing, 21.0)


def test_a_burst_between_two_scrapes_is_held_to_the_limit_of_the_wait(queueing: Backend) -> None:
    release(queueing, queueing.own, 20.0)
    scrape(queueing, running=0, waiting=0, now_s=20.1)
    let_in = 0
    while has_room(queueing, 20.15):
        queueing.reserve(20.15)
        let_in += 1
    places, turn_s, limit_s = queueing.running_limit, queueing.pace.turn_s, WaitingRule().burst_s
    assert let_in == pytest.approx(places + limit_s / turn_s, abs=1.0)
    assert let_in < 50


def test_a_queue_that_stood_is_no_reason_once_the_scrape_is_stale(queueing: Backend) -> None:
    queueing.release(22.5)
    assert has_room(queueing, 22.5)


def test_once_scrapes_stop_an_empty_backend_is_not_closed_by_a_queue_that_never_ran(backend: Backend) -> None:
    for second in range(20):
        backend.paced(Answered(0.0, 100.0, 0.0, 3.0, 500.0), float(second))
        scrape(backend, running=0, waiting=5, now_s=float(second), prompt_tokens_total=float(second))
    assert backend.pace.turn_s > 5.0, "the wait of one alone is too long"
    assert not has_room(backend, 19.0)
    assert has_room(backend, 60.0), "it has none of ours, so that nothing but a request can tell more"


def test_a_queue_before_a_pause_without_scrapes_has_not_been_standing_since(queueing: Backend) -> None:
    scrape(queueing, running=4, waiting=5, now_s=60.0)
    assert has_room(queueing, 60.0)


def test_a_queue_can_be_judged_where_answers_end_with_their_first_token(backend: Backend) -> None:
    for hundredth in range(2000):
        backend.paced(Answered(0.0, 8000.0, 0.0, 0.1, 0.0), hundredth / 100)
    assert backend.pace.base_s < 1e-5, "long prompts explain all of the time, and nothing is left"
    for tenth in range(20):
        scrape(backend, running=4, waiting=5, now_s=20.0 + tenth / 10)
    assert has_room(backend, 22.0)


def test_foreign_requests_in_the_queue_count_too(queueing: Backend) -> None:
    release(queueing, 9, 20.0)
    for tenth in range(1, 16):
        scrape(queueing, running=4, waiting=5, now_s=20.0 + tenth / 10, ended_total=float(tenth))
    assert known(queueing, 21.5).foreign == 9.0
    assert not has_room(queueing, 21.5)


def test_refused_scrapes_trip_the_breaker_and_a_good_one_allows_a_probe(backend: Backend) -> None:
    for _ in range(FAILURES):
        backend.scrape_refused(10.0)
    assert not is_admitting(backend, 10.5)
    scrape(backend, now_s=10.5)
    assert is_admitting(backend, 10.5)


def test_good_scrapes_do_not_shorten_the_pause_of_a_backend_that_fails_its_requests(backend: Backend) -> None:
    scrape(backend, now_s=9.9)
    for _ in range(FAILURES):
        backend.breaker.fail(10.0)
    scrape(backend, now_s=10.1)
    assert not is_admitting(backend, 10.2)


def test_one_request_at_a_time_probes_a_backend_that_failed(backend: Backend) -> None:
    for _ in range(FAILURES):
        backend.breaker.fail(10.0)
    assert is_admitting(backend, 11.0)
    backend.reserve(11.0)
    assert not is_admitting(backend, 1000.0)


def test_a_prompt_that_was_sent_keeps_the_backend_busy_at_its_pace(backend: Backend) -> None:
    pace = backend.pace
    backend.expect_prompt("first", 5000, 1.0)
    first_s = 5000 * pace.token_s + STEP_SHARE * pace.base_s
    assert backend.prefilled_at_s == pytest.approx(1.0 + first_s)
    backend.expect_prompt("second", 1000, 1.1)
    assert backend.prefilled_at_s == pytest.approx(
        1.0 + first_s + 1000 * pace.token_s + STEP_SHARE * pace.base_s
    )


def test_short_prompts_share_an_iteration(backend: Backend) -> None:
    """A prompt of a few tokens makes those behind it wait for no iteration of its own."""
    backend.expect_prompt("short", 5, 1.0)
    assert backend.prefilled_at_s == pytest.approx(1.0 + 2 * 5 * backend.pace.token_s)


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
    backend = a_backend(RULES)
    own, now_s = 0, 0.0
    for step in steps:
        now_s += 0.05
        if isinstance(step, tuple):
            backend.scraped(Signals(*step), own_when_asked=own, now_s=now_s)
        elif step == "reserve":
            backend.reserve(now_s)
            own += 1
        elif own:
            backend.release(now_s)
            own -= 1
        seen = known(backend, now_s)
        assert seen.own == own
        assert seen.load >= own
        assert seen.foreign >= 0.0
        assert 0.0 <= seen.num_running <= max(seen.load, backend.running + own)


@given(
    st.lists(
        st.sampled_from(["reserve", "release", "move", "answer"])
        | st.tuples(st.integers(0, 20), st.integers(0, 20)),
        max_size=30,
    )
)
def test_after_any_event_the_load_and_its_terms_are_what_they_are_by_definition(
    steps: list[str | tuple[int, int]],
) -> None:
    backend, other, now_s = a_backend(RULES), a_backend(RULES, number=2), 0.0
    for step in steps:
        now_s += 0.3
        if isinstance(step, tuple):
            scrape(backend, float(step[0]), float(step[1]), now_s=now_s)
        elif step == "reserve":
            backend.reserve(now_s)
        elif step == "answer":
            pace(backend, 3.0, now_s, count=1)
        elif backend.own and step == "release":
            backend.release(now_s)
        elif backend.own:
            backend.move_to(other, now_s)
        for each in (backend, other):
            assert each.load == each.own + each.foreign
            assert (each.turns_s, each.crowding_s) == each.load_terms(each.load)


def test_kv_memory_is_what_the_server_has_left_less_the_prompts_that_it_has_still_to_admit() -> None:
    backend = a_backend(RULES)
    assert backend.kv_free == inf, "a server that does not say what it has is not taken to lack it"
    scrape(backend, 10, kv_cache_fraction=0.75, kv_cache_tokens=10_000.0, now_s=1.0)
    assert backend.kv_free == 2500.0
    assert backend.kv_freed_s == pytest.approx(backend.pace.stay_s / 7500.0)
    backend.expect_prompt("one", 2000.0, 1.0)
    assert backend.kv_free <= 500.0, "the share of the iterations counts, too"
    backend.give_back_prompt("one")
    assert backend.kv_free == 2500.0
    scrape(backend, 3, kv_cache_fraction=0.75, kv_cache_tokens=10_000.0, now_s=1.1)
    assert backend.kv_freed_s == pytest.approx(backend.pace.stay_s / (3 * 2000.0)), "the rest is for output"
    scrape(backend, 10, now_s=1.2)
    assert backend.kv_free == inf
