"""Whether another server computes a request's prompt for the server that answers it, and which one.

The server that answers is chosen before. The first token is compared as both ways would bring it: from there,
behind the prompts that wait there, or from a server that prefills only, behind those that wait at that one,
and over the network. Both follow from requests in flight and from what was learned of either server, so that
a prefill server with a long queue gets no more. A fixed number of tokens would send it all long prompts, and
all of them would wait there.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from extproc.fleet.backend import Backend
from extproc.fleet.view import CandidateFacts, FleetView
from extproc.policy.expected_wait import expected_wait

STALLED = 1.0
"""Guessed: where a full batch stands still for a prompt, that is as bad as the request's own wait for it."""


class PrefillChoice(msgspec.Struct, frozen=True):
    """Prefill on `backend`, which has `cached_tokens` of the prompt; `moved_tokens` go to the other server.

    The first token comes after `ttft_without_transfer_s` and the transfer.
    """

    backend: Backend
    cached_tokens: float
    moved_tokens: float
    ttft_without_transfer_s: float


class Prefillers(NamedTuple):
    """The servers that may prefill a prompt for others, and in how many seconds each would have done so."""

    view: FleetView
    ready_s: Mapping[Backend, float]


def prefillers_of(prompt_tokens: float, view: FleetView) -> Prefillers:
    """Return those of some prefill servers that may take a prompt."""
    now_s, cached = view.now_s, view.cached_tokens
    ready_s = {
        backend: expected_wait(backend, load, prompt_tokens, cached.get(backend, 0.0), now_s).ttft_s
        for backend, load in zip(view.backends, view.loads, strict=True)
        if backend.breaker.admits_at_s <= now_s and view.has_room(backend)
    }
    return Prefillers(view, ready_s)


def prefill_elsewhere(
    prompt_tokens: float, chosen: Backend, known: CandidateFacts, prefillers: Prefillers
) -> PrefillChoice | None:
    """Return where to prefill a prompt that the `chosen` server answers; None where it does that best itself.

    `known` is what was known of that server.
    """
    moved_tokens = max(0.0, prompt_tokens - known.expected_cached_tokens)
    view, best = prefillers.view, None
    now_s = view.now_s
    best_s, least_load = there_s(chosen, known), 0.0
    for backend, prefill_s in prefillers.ready_s.items():
        cached_tokens, load = view.cached_tokens.get(backend, 0.0), view.load(backend)
        ttft_without_transfer_s = max(prefill_s, known.estimate.prompts_ahead_s) + known.estimate.turns_s
        expected_s = ttft_without_transfer_s + backend.transfer.expected_s(moved_tokens, now_s)
        if expected_s < best_s or (best is not None and expected_s == best_s and load < least_load):
            best_s, least_load = expected_s, load
            best = PrefillChoice(backend, cached_tokens, moved_tokens, ttft_without_transfer_s)
    return best


def nearer_by_prefill(
    prompt_tokens: float,
    candidates: Sequence[Backend],
    cached: Mapping[Backend, float],
    near: Mapping[Backend, float],
    prefillers: Prefillers,
) -> Mapping[Backend, float]:
    """Return the tokens of a prompt that each candidate is near to, where others may compute the prompt.

    Where it would be computed elsewhere, the time until it comes takes the place of the candidate's own
    computing, as tokens that it need not compute: candidates are compared by what is left for them.
    Looked at is the one prefill server that would have the whole prompt there first.
    """
    view, ready_s = prefillers
    if not ready_s:
        return near
    now_s, found = view.now_s, dict(near)
    first = min(ready_s, key=lambda one: ready_s[one] + one.transfer.expected_s(prompt_tokens, now_s))
    whole_s = first.transfer.expected_s(prompt_tokens, now_s)
    for backend in candidates:
        if not backend.endpoint.takes_prefilled:
            continue
        pace, moved_tokens, transfer_s = backend.pace, prompt_tokens, whole_s
        if backend in cached:
            moved_tokens = max(0.0, prompt_tokens - cached[backend])
            transfer_s = first.transfer.expected_s(moved_tokens, now_s)
        later_s = max(0.0, ready_s[first] - max(0.0, backend.prefilled_at_s - now_s)) + transfer_s
        computing_s = pace.token_s * moved_tokens
        own_s = pace.base_s + computing_s
        if later_s < own_s or later_s < own_s + stalled_s(backend, view.load(backend), computing_s):
            found[backend] = prompt_tokens - (later_s - pace.base_s) / pace.token_s
    return found


def there_s(chosen: Backend, known: CandidateFacts) -> float:
    """Return what prefilling on the server that answers takes, and what its other requests lose by that."""
    computing_s = max(0.0, known.estimate.own_prompt_s - chosen.pace.base_s)
    return known.estimate.ttft_s + stalled_s(chosen, known.load, computing_s)


def stalled_s(backend: Backend, load: float, computing_s: float) -> float:
    """Return what the requests of a backend lose while it computes a prompt, in seconds of one request."""
    return STALLED * min(1.0, load / min(backend.places, backend.limits.max_active)) * computing_s
