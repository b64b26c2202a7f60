"""Layer 1, the guard: which candidates may take a request, and in the same pass their scores.

A candidate is out while it fails, while it is saturated, and where the request would wait too long.

Most of a decision's time is spent in this loop. `FleetView.admitting`, `FleetView.has_room` and
`expected_wait.scores` say the same one by one; a test holds them equal.
"""

from math import inf

from extproc.fleet.pace import CROWDING
from extproc.fleet.view import FleetView


def fit(view: FleetView, prompt_tokens: float, limit_s: float = inf) -> tuple[FleetView, list[float]]:
    """Return the view of those that may take a request, and the score of each in seconds.

    `limit_s` is the request's own limit of the wait.
    """
    now_s, near_tokens = view.now_s, view.near_tokens.get
    prompt_tokens = float(prompt_tokens)  # numbers of one kind: floats with integers take twice as long
    found, expected_s = [], []
    for backend, load in zip(view.backends, view.loads, strict=True):
        if load > backend.closed_above or backend.breaker.admits_at_s > now_s:
            continue
        ahead_s = backend.prefilled_at_s - now_s
        if ahead_s > backend.longest_wait_s:
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
    return view.narrowed(found), expected_s
