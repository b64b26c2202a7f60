"""Where a prompt is prefilled, held against the plain definition of it, for any servers."""

from collections.abc import Sequence
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st
from support.build import FAILURES, STALE_AFTER_S, a_backend

from extproc.fleet.backend import Backend
from extproc.fleet.inference_stage import ALL_STAGES, InferenceStage
from extproc.fleet.pace import Pace
from extproc.fleet.view import FleetView
from extproc.policy.expected_wait import expected_wait
from extproc.policy.prefill import nearer_by_prefill, prefill_elsewhere, prefillers_of, stalled_s, there_s

NOW_S = 100.0
Facts = tuple[dict[str, object], bool, bool, float | None]
_seconds = st.floats(0.0, 10.0)
_servers = st.fixed_dictionaries(
    {
        "pace": st.builds(Pace, base_s=_seconds, token_s=st.floats(1e-7, 1e-2), turn_s=_seconds),
        "own": st.integers(0, 50),
        "foreign": st.floats(0.0, 50.0),
        "scraped_at_s": st.sampled_from([-inf, NOW_S - 0.1]),
        "places": st.floats(1.0, 100.0),
        "prefilled_at_s": st.just(-inf) | st.floats(NOW_S - 10.0, NOW_S + 10.0),
    }
)
_facts = st.tuples(_servers, st.booleans(), st.booleans(), st.none() | st.floats(0.0, 1e5))
"""Also whether it fails; whether it goes on with prompts of others and has moved some; its cached tokens."""


def _view(described: Sequence[Facts], prompt_tokens: float) -> FleetView:
    cached, backends = {}, []
    for number, (fields, is_failing, is_other, tokens) in enumerate(described):
        backend = a_backend(
            number=number, stages=frozenset({InferenceStage.DECODE}) if is_other else ALL_STAGES
        )
        for _ in range(FAILURES * is_failing):
            backend.breaker.fail(NOW_S)
        for name, value in fields.items():
            setattr(backend, name, value)
        if is_other:
            backend.transfer.learn(1000.0, 0.1, 0.5, NOW_S - 5.0)
        if tokens is not None:
            cached[backend] = min(tokens, prompt_tokens)
        backends.append(backend)
    return FleetView(backends, NOW_S, NOW_S - STALE_AFTER_S, cached)


def _ready_s(view: FleetView, prompt_tokens: float) -> dict[Backend, float]:
    """When each server that may prefill a prompt would have done so."""
    return {
        each: expected_wait(
            each, view.load(each), prompt_tokens, view.cached_tokens.get(each, 0.0), NOW_S
        ).ttft_s
        for each in view.admitting().backends
        if view.has_room(each)
    }


@settings(deadline=None)
@given(st.lists(_facts, max_size=4), _facts, st.floats(0.0, 1e5))
def test_the_prefill_server_is_the_one_with_which_the_first_token_comes_soonest(
    prefilling: list[Facts],
    answering: Facts,
    prompt_tokens: float,
) -> None:
    view, own = _view(prefilling, prompt_tokens), _view([answering], prompt_tokens)
    (chosen,) = own.backends
    cached_tokens = own.cached_tokens.get(chosen, 0.0)
    known = own.facts(chosen, expected_wait(chosen, own.load(chosen), prompt_tokens, cached_tokens, NOW_S))
    moved_tokens = prompt_tokens - known.expected_cached_tokens
    ahead_s, turns_s = known.estimate.prompts_ahead_s, known.estimate.turns_s
    elsewhere_s = {
        each: max(ready_s, ahead_s) + turns_s + each.transfer.expected_s(moved_tokens, NOW_S)
        for each, ready_s in _ready_s(view, prompt_tokens).items()
    }
    choice = prefill_elsewhere(prompt_tokens, chosen, known, prefillers_of(prompt_tokens, view))
    soonest_s = min(elsewhere_s.values(), default=inf)
    assert (choice is not None) == (soonest_s < there_s(chosen, known))
    if choice is not None:
        equal = [each for each, expected_s in elsewhere_s.items() if expected_s == soonest_s]
        assert choice.backend is min(equal, key=view.load)
        assert choice.cached_tokens == view.cached_tokens.get(choice.backend, 0.0)


@settings(deadline=None)
@given(st.lists(_facts, max_size=4), st.lists(_facts, max_size=6), st.floats(0.0, 1e5))
def test_servers_are_nearer_by_what_another_computes_for_them(
    prefilling: list[Facts],
    answering: list[Facts],
    prompt_tokens: float,
) -> None:
    view, own = _view(prefilling, prompt_tokens), _view(answering, prompt_tokens)
    ready_s, cached = _ready_s(view, prompt_tokens), own.cached_tokens
    expected = dict(cached)
    for each in own.backends if ready_s else ():
        moved_tokens = prompt_tokens - cached.get(each, 0.0)
        first = min(ready_s, key=lambda one: ready_s[one] + one.transfer.expected_s(prompt_tokens, NOW_S))
        waits_s = max(0.0, ready_s[first] - max(0.0, each.prefilled_at_s - NOW_S))
        later_s = waits_s + first.transfer.expected_s(moved_tokens, NOW_S)
        computing_s = each.pace.token_s * moved_tokens
        is_later = later_s >= each.pace.base_s + computing_s + stalled_s(each, own.load(each), computing_s)
        if each.endpoint.takes_prefilled and not is_later:
            expected[each] = prompt_tokens - (later_s - each.pace.base_s) / each.pace.token_s
    prefillers = prefillers_of(prompt_tokens, view)
    assert nearer_by_prefill(prompt_tokens, own.backends, cached, cached, prefillers) == expected
