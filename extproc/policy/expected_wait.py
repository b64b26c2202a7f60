"""The estimate: what a request has to expect on a backend until its first token, in seconds.

Shortest expected delay routing (Banawan and Zahorjan, "Load sharing in heterogeneous queueing systems",
INFOCOM 1989) with an engine that serves `places` requests at once and prefills one after another. The
parameters are each backend's own pace (`fleet.pace`). The sum of named terms (`fleet.wait_terms`):

- `own_prompt_s`: the request's own tokens, less those expected in the prefix cache;
- `prompts_ahead_s`: prompts that were sent there and are not computed yet (`fleet.prefill_backlog`);
- `turns_s`: the time until enough requests end that a place is free, and KV memory for the prompt.

A score is compared, not predicted. It adds `crowding_s`: a place and a share of the engine that this request
takes are lacking for those that come after it.

`expected_wait` is the definition; `policy.guard.fit` and `policy.predictive` have it written out once more,
for speed.
"""

from collections.abc import Mapping

from extproc.fleet.backend import Backend
from extproc.fleet.view import FleetView
from extproc.fleet.wait_terms import ExpectedWait


def expected_wait(
    backend: Backend, load: float, prompt_tokens: float, cached_tokens: float, now_s: float
) -> ExpectedWait:
    """Estimate the wait of a request of `prompt_tokens`, of which `cached_tokens` need not be computed."""
    pace, ahead_s = backend.pace, backend.prefilled_at_s - now_s
    turns_s, crowding_s = backend.turns_s, backend.crowding_s
    if load != backend.load:
        turns_s, crowding_s = backend.load_terms(load)
    if prompt_tokens > backend.kv_free:
        turns_s = max(turns_s, backend.kv_freed_s * (prompt_tokens - backend.kv_free))
    return ExpectedWait(
        pace.base_s + pace.token_s * (prompt_tokens - cached_tokens),
        ahead_s if ahead_s > 0.0 else 0.0,
        turns_s,
        crowding_s,
    )


def estimates(
    view: FleetView, prompt_tokens: float, cached_tokens: Mapping[Backend, float]
) -> list[ExpectedWait]:
    """Return the estimate of each candidate."""
    return [
        expected_wait(backend, load, prompt_tokens, cached_tokens.get(backend, 0.0), view.now_s)
        for backend, load in zip(view.backends, view.loads, strict=True)
    ]


def scores(view: FleetView, prompt_tokens: float) -> list[float]:
    """Return the score of each candidate in seconds."""
    return [each.score_s for each in estimates(view, prompt_tokens, view.near_tokens)]


def shortest_wait_s(view: FleetView) -> float:
    """Return what a request has to wait where it is least, whatever its prompt."""
    return min(each.wait_s for each in estimates(view, 0.0, {}))
