"""Layer 1, the guard: which candidates may take a request, and in the same pass their scores.

A candidate is out while it fails, while it is saturated, where the request would wait too long, and where it
would be late: what it waits for others there, and what its own prompt takes longer than on a faster machine,
are together more than it may wait at all. Sent to a slow machine once the fast ones are busy, a long prompt
would be late, and those behind it as well. A machine that is idle is out for neither.

Most of a decision's time is spent in this loop. So the terms that change with an event of the backend alone
are read from it (`EngineEstimate.expect_next`). `FleetView.admitting`, `FleetView.has_room` and
`expected_wait.scores` say the same one by one; a test holds them equal.
"""

from math import inf

from extproc.fleet.backend import Backend
from extproc.fleet.usual_prompt import LEAST_SHARE
from extproc.fleet.view import FleetView


def fit(
    view: FleetView, prompt_tokens: float, limit_s: float = inf, late_s: float = inf
) -> tuple[FleetView, list[float]]:
    """Return the view of those that may take a request, and the score of each in seconds.

    `limit_s` is the request's own limit of the wait. It is late where its first token comes more than
    `late_s` later than it would on the fastest of those that do not fail, idle and with nothing cached.
    """
    now_s, fresh_from_s, near_tokens = view.now_s, view.fresh_from_s, view.near_tokens.get
    prompt_tokens = float(prompt_tokens)  # numbers of one kind: floats with integers take twice as long
    expected_s: list[float] = []
    out: set[Backend] = set()
    may_be_late = False
    for backend in view.backends:
        load, turns_s, crowding_s = backend.load, backend.turns_s, backend.crowding_s
        if backend.scraped_at_s < fresh_from_s:  # of foreign requests nothing is known
            load = backend.own
            turns_s, crowding_s = backend.load_terms(load)
        if prompt_tokens > backend.kv_free:
            turns_s = max(turns_s, backend.kv_freed_s * (prompt_tokens - backend.kv_free))
        ahead_s, longest_wait_s = backend.prefilled_at_s - now_s, backend.longest_wait_s
        wait_s = ahead_s + turns_s if ahead_s > 0.0 else turns_s
        new_tokens = prompt_tokens - near_tokens(backend, 0.0)
        if (
            load > backend.closed_above
            or wait_s > limit_s
            or backend.breaker.admits_at_s > now_s
            or (
                ahead_s > LEAST_SHARE * longest_wait_s
                and ahead_s > longest_wait_s * backend.usual_prompt.wait_share(new_tokens)
            )
        ):
            out.add(backend)
            continue
        pace = backend.pace
        score_s = pace.base_s + pace.token_s * new_tokens + wait_s + crowding_s
        expected_s.append(score_s)
        if score_s > late_s:
            may_be_late = True
    found = view.narrowed([backend for backend in view.backends if backend not in out]) if out else view
    if may_be_late:
        return _in_time(view, prompt_tokens, late_s, found, expected_s)
    return found, expected_s


def _in_time(
    view: FleetView, prompt_tokens: float, late_s: float, found: FleetView, expected_s: list[float]
) -> tuple[FleetView, list[float]]:
    """Return those backends of `found`, and their scores, that are idle or where the request is not late."""
    now_s, near_tokens = view.now_s, view.near_tokens.get
    admitting = [each.pace for each in view.backends if each.breaker.admits_at_s <= now_s]
    latest_s = late_s + min(pace.base_s + pace.token_s * prompt_tokens for pace in admitting)
    kept = []
    for number, backend in enumerate(found.backends):
        pace, ahead_s = backend.pace, max(0.0, backend.prefilled_at_s - now_s)
        own_s = pace.base_s + pace.token_s * (prompt_tokens - near_tokens(backend, 0.0))
        if ahead_s + own_s <= latest_s or backend.load <= 0.0:
            kept.append(number)
    return found.narrowed([found.backends[number] for number in kept]), [
        expected_s[number] for number in kept
    ]
