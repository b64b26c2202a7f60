"""Whether another server computes a request's prompt for the server that answers it, and which one.

The server that answers is chosen before. The first token is compared as both ways would bring it: from there,
behind the prompts that wait there, or from a server that prefills only, behind those that wait at that one,
and over the network. Both follow from requests in flight and from what was learned of either server, so that
a prefill server with a long queue gets no more. A fixed number of tokens would send it all long prompts, and
all of them would wait there.
"""

from collections.abc import Mapping, Sequence

import msgspec

from extproc.fleet.backend import Backend
from extproc.fleet.view import CandidateFacts, FleetView
from extproc.policy.expected_wait import expected_wait

STALLED = 1.0
"""Guessed: where a full batch stands still for a prompt, that is as bad as the request's own wait for it."""


class PrefillChoice(msgspec.Struct, frozen=True):
    """Prefill on `backend`, which has `cached_tokens` of the prompt; `moved_tokens` go to the other server.

    The first token is `foretold_s` away, without the transfer.
    """

    backend: Backend
    cached_tokens: float
    moved_tokens: float
    foretold_s: float


def prefill_elsewhere(
    prompt_tokens: float, chosen: Backend, known: CandidateFacts, prefillers: FleetView
) -> PrefillChoice | None:
    """Return where to prefill a prompt that the `chosen` server answers; None where it does that best itself.

    `known` is what was known of that server.
    """
    moved_tokens = max(0.0, prompt_tokens - known.expected_cached_tokens)
    now_s, best = prefillers.now_s, None
    best_s, least_load = there_s(chosen, known), 0.0
    for backend, prefill_s in prefills_s(prompt_tokens, prefillers).items():
        cached_tokens, load = prefillers.cached_tokens.get(backend, 0.0), prefillers.load(backend)
        foretold_s = max(prefill_s, known.estimate.prompts_ahead_s) + known.estimate.turns_s
        expected_s = foretold_s + backend.transfer.expected_s(moved_tokens, now_s)
        if expected_s < best_s or (best is not None and expected_s == best_s and load < least_load):
            best_s, least_load = expected_s, load
            best = PrefillChoice(backend, cached_tokens, moved_tokens, foretold_s)
    return best


def nearer_by_prefill(
    prompt_tokens: float,
    candidates: Sequence[Backend],
    cached: Mapping[Backend, float],
    near: Mapping[Backend, float],
    prefillers: FleetView,
) -> Mapping[Backend, float]:
    """Return the tokens of a prompt that each candidate is near to, where others may compute the prompt.

    Where it would be computed elsewhere, the time until it comes takes the place of the candidate's own
    computing, told as tokens that it need not compute: candidates are compared by what is left for them.
    Looked at is the one prefill server that would have the whole prompt there first.
    """
    now_s, found = prefillers.now_s, dict(near)
    prefilled_s = prefills_s(prompt_tokens, prefillers)
    if not prefilled_s:
        return near
    first = min(prefilled_s, key=lambda one: prefilled_s[one] + one.transfer.expected_s(prompt_tokens, now_s))
    for backend in candidates:
        if not backend.endpoint.takes_prefilled:
            continue
        pace, ahead_s = backend.pace, max(0.0, backend.prefilled_at_s - now_s)
        moved_tokens = max(0.0, prompt_tokens - cached.get(backend, 0.0))
        later_s = max(0.0, prefilled_s[first] - ahead_s) + first.transfer.expected_s(moved_tokens, now_s)
        computing_s = pace.token_s * moved_tokens
        if later_s < pace.base_s + computing_s + stalled_s(backend, prefillers.load(backend), computing_s):
            found[backend] = prompt_tokens - (later_s - pace.base_s) / pace.token_s
    return found


def prefills_s(prompt_tokens: float, prefillers: FleetView) -> Mapping[Backend, float]:
    """Return when a prompt is computed on each prefill server that may take it, in seconds from now."""
    now_s, cached = prefillers.now_s, prefillers.cached_tokens
    return {
        backend: expected_wait(backend, load, prompt_tokens, cached.get(backend, 0.0), now_s).ttft_s
        for backend, load in zip(prefillers.backends, prefillers.loads, strict=True)
        if backend.breaker.admits_at_s <= now_s and prefillers.has_room(backend)
    }


def there_s(chosen: Backend, known: CandidateFacts) -> float:
    """Return what prefilling on the server that answers takes, and what its other requests lose by that."""
    computing_s = max(0.0, known.estimate.own_prompt_s - chosen.pace.base_s)
    return known.estimate.ttft_s + stalled_s(chosen, known.load, computing_s)


def stalled_s(backend: Backend, load: float, computing_s: float) -> float:
    """Return what the requests of a backend lose while it computes a prompt, in seconds of one request."""
    return STALLED * min(1.0, load / min(backend.places, backend.limits.max_active)) * computing_s
