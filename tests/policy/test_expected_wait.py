from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.build import STALE_AFTER_S, a_backend, reserve, view_of

from extproc.fleet.backend import Backend
from extproc.fleet.engine_estimate import STEP_SHARE
from extproc.fleet.pace import Pace
from extproc.fleet.view import FleetView
from extproc.policy.expected_wait import expected_wait, scores

NOW_S = 100.0


def with_fields(backend: Backend, fields: Iterable[tuple[str, object]]) -> Backend:
    for name, value in fields:
        setattr(backend, name, value)
    return backend


def expected_s(prompt_tokens: float = 0.0, **fields: object) -> float:
    """Return the score of the only candidate, which has these fields."""
    backend = with_fields(a_backend(), fields.items())
    (score,) = scores(view_of([backend], NOW_S), prompt_tokens)
    return score


def test_a_request_expects_its_own_prompt_those_ahead_and_its_turn() -> None:
    pace = Pace(base_s=0.1, token_s=0.001, turn_s=0.5)
    idle_s = expected_s(100, pace=pace)
    assert idle_s == pytest.approx(0.1 + 0.1 + 0.01)
    assert expected_s(100, pace=pace, prefilled_at_s=NOW_S + 0.7) == pytest.approx(idle_s + 0.7)
    assert expected_s(100, pace=pace, prefilled_at_s=NOW_S - 0.7) == idle_s
    waiting_s = expected_s(100, pace=pace, own=10, places=8)
    assert waiting_s == pytest.approx(0.2 + 0.5 * (3 + 0.22))


def test_the_terms_are_the_own_prompt_the_prompts_ahead_the_turns_and_the_crowding() -> None:
    backend = with_fields(
        a_backend(max_num_seqs=8),
        {"pace": Pace(base_s=0.1, token_s=0.001, turn_s=0.5), "prefilled_at_s": NOW_S + 0.7}.items(),
    )
    terms = expected_wait(backend, load=10, prompt_tokens=100, cached_tokens=40, now_s=NOW_S)
    assert terms == pytest.approx((0.1 + 0.06, 0.7, 0.5 * 3, 0.5 * 0.22))
    assert terms.score_s == pytest.approx(sum(terms))
    assert terms.ttft_s == pytest.approx(sum(terms) - terms.crowding_s), "crowding is compared, not predicted"
    assert terms.wait_s == pytest.approx(0.7 + 0.5 * 3), "its own computing is no wait"


def test_a_request_waits_for_a_place_and_for_memory_whichever_is_later() -> None:
    pace = Pace(base_s=0.1, token_s=0.0, turn_s=0.5)
    fits_s = expected_s(100, pace=pace, kv_free=100.0, kv_freed_s=0.01)
    assert fits_s == expected_s(100, pace=pace)
    assert expected_s(300, pace=pace, kv_free=100.0, kv_freed_s=0.01) == pytest.approx(fits_s + 2.0)
    both_s = expected_s(300, pace=pace, own=10, places=8, kv_free=100.0, kv_freed_s=0.01)
    assert both_s == pytest.approx(0.1 + 2.0 + 0.5 * 0.22)


def test_where_nothing_is_known_the_estimate_follows_the_load() -> None:
    assert expected_s(own=3) < expected_s(own=4)
    assert expected_s(own=3) == expected_s(own=3)


def test_tokens_in_the_prefix_cache_shorten_the_wait_on_that_backend_alone() -> None:
    one, two = a_backend(number=1), a_backend(number=2)
    view = FleetView([one, two], NOW_S, NOW_S - STALE_AFTER_S, {one: 800.0})
    with_cache_s, without_s = scores(view, 1000.0)
    assert without_s - with_cache_s == pytest.approx(800 * two.pace.token_s)


def test_prompts_that_were_sent_delay_the_next_until_they_are_computed() -> None:
    backend = a_backend()
    (before_s,) = scores(view_of([backend], 1.0), 0.0)
    backend.expect_prompt("sent", 5000, 1.0)
    backlog_s = 5000 * backend.pace.token_s + STEP_SHARE * backend.pace.base_s
    assert scores(view_of([backend], 1.0), 0.0) == pytest.approx([before_s + backlog_s])
    assert scores(view_of([backend], 1.0 + backlog_s), 0.0) == pytest.approx([before_s])


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8))
def test_among_backends_of_the_same_pace_the_least_loaded_expects_the_least(loads: list[int]) -> None:
    backends = [a_backend(number=number, max_num_seqs=4) for number in range(len(loads))]
    for backend, load in zip(backends, loads, strict=True):
        reserve(backend, load, NOW_S)
    found = scores(view_of(backends, NOW_S), 100.0)
    assert loads[found.index(min(found))] == min(loads)
