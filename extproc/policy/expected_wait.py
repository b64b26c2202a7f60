"""The estimate: what a request has to expect on a backend until its first token, in seconds.

Shortest expected delay routing (Banawan and Zahorjan, "Load sharing in heterogeneous queueing systems",
INFOCOM 1989) with an engine that serves `places` requests at once and prefills one after another. The
parameters are each backend's own pace (`fleet.pace`). The sum of named terms (`fleet.wait_terms`):

- `own_prompt_s`: the request's own tokens, less those expected in the prefix cache;
- `prompts_ahead_s`: prompts that were sent there and are not computed yet (`fleet.prefill_backlog`);
- `turns_s`: the time until enough requests end that a place is free, where all are taken.

A score is compared, not foretold. It adds `crowding_s`: a place and a share of the engine that this request
takes are lacking for those that come after it.

`expected_wait` is the definition; `scores` is the same for all candidates of a decision at once, written out
in one loop for speed, and a test holds the two equal.
"""

from extproc.fleet.backend import Backend
from extproc.fleet.pace import CROWDING
from extproc.fleet.view import FleetView
from extproc.fleet.wait_terms import ExpectedWait


def expected_wait(
    backend: Backend, load: float, prompt_tokens: float, cached_tokens: float, now_s: float
) -> ExpectedWait:
    """Estimate the wait of a request of `prompt_tokens`, of which `cached_tokens` need not be computed."""
    pace, load_with_it = backend.pace, load + 1
    waiting_turns = max(0.0, load_with_it - backend.places)
    return ExpectedWait(
        pace.base_s + pace.token_s * (prompt_tokens - cached_tokens),
        max(0.0, backend.prefilled_at_s - now_s),
        pace.turn_s * waiting_turns,
        pace.turn_s * CROWDING * load_with_it,
    )


def scores(view: FleetView, prompt_tokens: float) -> list[float]:
    """Return the score of each candidate in seconds; 1,000 of them in half a millisecond."""
    now_s, near_tokens = view.now_s, view.near_tokens
    expected_s = []
    for backend, load in zip(view.backends, view.loads, strict=True):
        pace, load_with_it = backend.pace, load + 1
        turns = CROWDING * load_with_it
        if load_with_it > backend.places:
            turns += load_with_it - backend.places
        each_s = pace.base_s + pace.token_s * (prompt_tokens - near_tokens.get(backend, 0.0))
        if backend.prefilled_at_s > now_s:
            each_s += backend.prefilled_at_s - now_s
        expected_s.append(each_s + pace.turn_s * turns)
    return expected_s


def in_time(view: FleetView, limit_s: float) -> FleetView:
    """Return the view of those where `wait_s` is at most `limit_s`, in one loop like the scores."""
    now_s, found = view.now_s, []
    for backend, load in zip(view.backends, view.loads, strict=True):
        wait_s = backend.prefilled_at_s - now_s if backend.prefilled_at_s > now_s else 0.0
        if load + 1 > backend.places:
            wait_s += backend.pace.turn_s * (load + 1 - backend.places)
        if wait_s <= limit_s:
            found.append(backend)
    return view.narrowed(found)
