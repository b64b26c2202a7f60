from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.build import FAILURES, STALE_AFTER_S, a_backend, reserve, settle, view_of

from extproc.fleet.backend import Backend
from extproc.fleet.pace import Pace
from extproc.fleet.view import FleetView
from extproc.policy.expected_wait import expected_wait
from extproc.policy.guard import fit

NOW_S = 100.0

_seconds = st.floats(0.0, 1e4)
_paces = st.builds(Pace, base_s=_seconds, token_s=st.floats(0.0, 1.0), turn_s=_seconds, stay_s=_seconds)
_candidates = st.fixed_dictionaries(
    {
        "pace": _paces,
        "own": st.integers(0, 500),
        "is_failing": st.booleans(),
        "closed_above": st.sampled_from([0.0, 9.0, inf]),
        "longest_wait_s": st.sampled_from([0.5, 30.0]),
        "foreign": st.floats(0.0, 500.0),
        "scraped_at_s": st.sampled_from([-inf, NOW_S - 9.0, NOW_S - 0.1]),
        "places": st.just(inf) | st.floats(1.0, 500.0),
        "kv_free": st.just(inf) | st.floats(-1e6, 1e6),
        "kv_freed_s": st.floats(0.0, 10.0),
        "prefilled_at_s": st.just(-inf) | st.floats(NOW_S - 60.0, NOW_S + 60.0),
    }
)


def _backend(number: int, fields: dict[str, object]) -> Backend:
    backend = a_backend(number=number)
    for _ in range(FAILURES * bool(fields["is_failing"])):
        backend.breaker.fail(NOW_S)
    for name in fields.keys() - {"is_failing"}:
        setattr(backend, name, fields[name])
    settle([backend])
    return backend


@settings(deadline=None)
@given(
    st.lists(st.tuples(_candidates, st.none() | st.floats(0.0, 1e6)), max_size=8),
    st.floats(0.0, 1e6),
    st.just(inf) | st.floats(0.0, 1e4),
)
def test_the_pass_finds_those_that_admit_have_room_and_are_in_time_with_their_estimates(
    candidates: list[tuple[dict[str, object], float | None]], prompt_tokens: float, limit_s: float
) -> None:
    held = [(_backend(number, fields), tokens) for number, (fields, tokens) in enumerate(candidates)]
    cached = {backend: tokens for backend, tokens in held if tokens is not None}
    view = FleetView([backend for backend, _ in held], NOW_S, NOW_S - STALE_AFTER_S, cached)
    estimates = {
        backend: expected_wait(backend, view.load(backend), prompt_tokens, cached.get(backend, 0.0), NOW_S)
        for backend in view.admitting().backends
        if view.has_room(backend)
    }
    expected = {each: estimate.score_s for each, estimate in estimates.items() if estimate.wait_s <= limit_s}
    found, scores = fit(view, prompt_tokens, limit_s)
    assert list(found.backends) == list(expected)
    assert scores == pytest.approx(list(expected.values()), rel=1e-9)


def test_a_view_in_which_all_are_fit_is_not_made_again() -> None:
    view = view_of([a_backend(), a_backend(number=2)], NOW_S)
    assert fit(view, 100.0)[0] is view


def test_a_busy_machine_on_which_a_prompt_is_late_is_out() -> None:
    fast, slow = a_backend(), a_backend(number=2)
    reserve(slow, 1, NOW_S)
    fast.pace, slow.pace = Pace(base_s=0.0, token_s=1e-4), Pace(base_s=0.0, token_s=2e-4)
    view = view_of([fast, slow], NOW_S)
    assert fit(view, 21_000.0, late_s=2.0)[0].backends == [fast], "2.1 s later than on the fast one"
    assert fit(view, 19_000.0, late_s=2.0)[0].backends == [fast, slow]
    slow.prefilled_at_s = NOW_S + 0.2
    assert fit(view, 19_000.0, late_s=2.0)[0].backends == [fast], "it would wait for others as well"
    fast.closed_above = -1.0
    assert fit(view, 21_000.0, late_s=2.0)[0].backends == []


def test_an_idle_machine_takes_a_prompt_however_slow_it_is() -> None:
    fast, slow = a_backend(), a_backend(number=2)
    fast.pace, slow.pace = Pace(token_s=1e-4), Pace(token_s=1e-3)
    fast.closed_above = -1.0
    assert fit(view_of([fast, slow], NOW_S), 50_000.0, late_s=2.0)[0].backends == [slow]


def test_a_slow_machine_takes_long_prompts_where_all_faster_ones_fail() -> None:
    fast, slow = a_backend(), a_backend(number=2)
    fast.pace, slow.pace = Pace(token_s=1e-4), Pace(token_s=1e-3)
    for _ in range(FAILURES):
        fast.breaker.fail(NOW_S)
    assert fit(view_of([fast, slow], NOW_S), 50_000.0, late_s=2.0)[0].backends == [slow]


def test_where_others_wait_a_prompt_of_usual_length_is_let_in_before_a_long_one() -> None:
    backend = a_backend()
    for number in range(100):
        backend.expect_prompt(number, 1000.0, NOW_S - 60.0)
    backend.prefilled_at_s = NOW_S + 0.7 * backend.longest_wait_s
    view = view_of([backend], NOW_S)
    assert fit(view, 1000.0)[0].backends == [backend]
    assert fit(view, 9000.0)[0].backends == []
    backend.prefilled_at_s = NOW_S + 0.4 * backend.longest_wait_s
    assert fit(view, 9000.0)[0].backends == [backend]


def test_a_backend_with_too_many_prompts_ahead_is_out_until_they_are_computed() -> None:
    backend = a_backend()
    reserve(backend, 1, NOW_S)
    backend.expect_prompt("a long one", (backend.longest_wait_s + 1.0) / backend.pace.token_s, NOW_S)
    assert fit(view_of([backend], NOW_S), 0.0)[0].backends == []
    assert fit(view_of([backend], NOW_S + 1.5), 0.0)[0].backends == [backend]
