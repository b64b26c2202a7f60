"""Layer 1, the guard: which candidates may take a request, and in the same pass their scores.

A candidate is out while it fails, while it is saturated, where the request would wait too long, and where it
would be late: what it waits for others there, and what its own prompt takes longer than on a faster machine,
are together more than it may wait at all. Sent to a slow machine once the fast ones are busy, a long prompt
would be late, and those behind it as well. Where a fast one is idle this refuses nothing.

Most of a decision's time is spent in this loop. `FleetView.admitting`, `FleetView.has_room` and
`expected_wait.scores` say the same one by one; a test holds them equal.
"""

from math import inf

from extproc.fleet.backend import Backend
from extproc.fleet.pace import CROWDING
from extproc.fleet.usual_prompt import LEAST_SHARE
from extproc.fleet.view import FleetView


def fit(
    view: FleetView, prompt_tokens: float, limit_s: float = inf, late_s: float = inf
) -> tuple[FleetView, list[float]]:
    """Return the view of those that may take a request, and the score of each in seconds.

    `limit_s` is the request's own limit of the wait. It is late where its first token comes more than
    `late_s` later than it would on the fastest of those that do not fail, idle and with nothing cached.
    """
    now_s, near_tokens = view.now_s, view.near_tokens.get
    prompt_tokens = float(prompt_tokens)  # numbers of one kind: floats with integers take twice as long
    found, expected_s = [], []
    for backend, load in zip(view.backends, view.loads, strict=True):
        if load > backend.closed_above or backend.breaker.admits_at_s > now_s:
            continue
        ahead_s = backend.prefilled_at_s - now_s
        if ahead_s > LEAST_SHARE * backend.longest_wait_s:
            new_tokens = prompt_tokens - near_tokens(backend, 0.0)
            if ahead_s > backend.longest_wait_s * backend.usual_prompt.wait_share(new_tokens):
                continue
        pace, load_with_it, places = backend.pace, load + 1.0, backend.places
        turn_s, turns_s = pace.turn_s, 0.0
        if load_with_it > places:
            turns_s = turn_s * (load_with_it - places)
        if prompt_tokens > backend.kv_free:
            turns_s = max(turns_s, backend.kv_freed_s * (prompt_tokens - backend.kv_free))
        wait_s = (ahead_s if ahead_s > 0.0 else 0.0) + turns_s
        if wait_s > limit_s:
            continue
        own_s = pace.base_s + pace.token_s * (prompt_tokens - near_tokens(backend, 0.0))
        found.append(backend)
        expected_s.append(own_s + wait_s + turn_s * CROWDING * load_with_it)
    if found and max(expected_s) > late_s:
        found, expected_s = _in_time(view, prompt_tokens, late_s, found, expected_s)
    return view.narrowed(found), expected_s


def _in_time(
    view: FleetView, prompt_tokens: float, late_s: float, found: list[Backend], expected_s: list[float]
) -> tuple[list[Backend], list[float]]:
    """Return those backends, and their scores, where the request is not late."""
    now_s, near_tokens = view.now_s, view.near_tokens.get
    admitting = [each.pace for each in view.backends if each.breaker.admits_at_s <= now_s]
    latest_s = late_s + min(pace.base_s + pace.token_s * prompt_tokens for pace in admitting)
    kept = []
    for number, backend in enumerate(found):
        pace, ahead_s = backend.pace, max(0.0, backend.prefilled_at_s - now_s)
        own_s = pace.base_s + pace.token_s * (prompt_tokens - near_tokens(backend, 0.0))
        if ahead_s + own_s <= latest_s:
            kept.append(number)
    return [found[number] for number in kept], [expected_s[number] for number in kept]
