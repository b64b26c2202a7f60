"""Layer 1, the guard: which candidates may take a request, and in the same pass their scores.

A candidate is out while it fails, while it is saturated, and where the request would wait too long.

Most of a decision's time is spent in this loop. So the terms that change with an event of the backend alone
are read from it (`EngineEstimate.expect_next`). `FleetView.admitting`, `FleetView.has_room` and
`expected_wait.scores` say the same one by one; a test holds them equal.
"""

from math import inf

from extproc.fleet.backend import Backend
from extproc.fleet.view import FleetView


def fit(view: FleetView, prompt_tokens: float, limit_s: float = inf) -> tuple[FleetView, list[float]]:
    """Return the view of those that may take a request, and the score of each in seconds.

    `limit_s` is the request's own limit of the wait.
    """
    now_s, fresh_from_s, near_tokens = view.now_s, view.fresh_from_s, view.near_tokens.get
    prompt_tokens = float(prompt_tokens)  # numbers of one kind: floats with integers take twice as long
    expected_s: list[float] = []
    out: set[Backend] = set()
    for backend in view.backends:
        load, turns_s, crowding_s = backend.load, backend.turns_s, backend.crowding_s
        if backend.scraped_at_s < fresh_from_s:  # of foreign requests nothing is known
            load = backend.own
            turns_s, crowding_s = backend.load_terms(load)
        if prompt_tokens > backend.kv_free:
            turns_s = max(turns_s, backend.kv_freed_s * (prompt_tokens - backend.kv_free))
        ahead_s = backend.prefilled_at_s - now_s
        wait_s = ahead_s + turns_s if ahead_s > 0.0 else turns_s
        if (
            load > backend.closed_above
            or ahead_s > backend.longest_wait_s
            or wait_s > limit_s
            or backend.breaker.admits_at_s > now_s
        ):
            out.add(backend)
            continue
        pace = backend.pace
        own_s = pace.base_s + pace.token_s * (prompt_tokens - near_tokens(backend, 0.0))
        expected_s.append(own_s + wait_s + crowding_s)
    if not out:
        return view, expected_s
    return view.narrowed([backend for backend in view.backends if backend not in out]), expected_s
