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
from extproc.fleet.inference_stage import ALL_STAGES
from extproc.fleet.transfer_cost import guessed_s
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


class Prefiller(NamedTuple):
    """One server that may prefill a prompt, which it would have done in `ready_s`."""

    backend: Backend
    load: float
    cached_tokens: float
    ready_s: float
    transfer_factor: float

    def transfer_s(self, tokens: float) -> float:
        """Return what the transfer of this many tokens is expected to take."""
        return self.transfer_factor * guessed_s(tokens)


class Prefillers(NamedTuple):
    """The servers that may prefill a prompt for others, as the decision sees all backends in `view`."""

    view: FleetView
    servers: Sequence[Prefiller]


def prefillers_of(prompt_tokens: float, view: FleetView) -> Prefillers:
    """Return those of some prefill servers that may take a prompt."""
    now_s, found = view.now_s, []
    for backend, load in zip(view.backends, view.loads, strict=True):
        if backend.breaker.admits_at_s <= now_s and view.has_room(backend):
            cached_tokens = view.cached_tokens.get(backend, 0.0)
            ready_s = expected_wait(backend, load, prompt_tokens, cached_tokens, now_s).ttft_s
            found.append(Prefiller(backend, load, cached_tokens, ready_s, backend.transfer.factor(now_s)))
    return Prefillers(view, found)


def prefill_elsewhere(
    prompt_tokens: float, chosen: Backend, known: CandidateFacts, prefillers: Prefillers
) -> PrefillChoice | None:
    """Return where to prefill a prompt that the `chosen` server answers; None where it does that best itself.

    `known` is what was known of that server.
    """
    moved_tokens = max(0.0, prompt_tokens - known.expected_cached_tokens)
    ahead_s, turns_s = known.estimate.prompts_ahead_s, known.estimate.turns_s
    best, best_s, best_without_s = None, there_s(chosen, known), 0.0
    for each in prefillers.servers:
        without_transfer_s = max(each.ready_s, ahead_s) + turns_s
        expected_s = without_transfer_s + each.transfer_s(moved_tokens)
        if expected_s < best_s or (best is not None and expected_s == best_s and each.load < best.load):
            best, best_s, best_without_s = each, expected_s, without_transfer_s
    return best and PrefillChoice(best.backend, best.cached_tokens, moved_tokens, best_without_s)


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
    view, servers = prefillers
    if not servers:
        return near
    now_s, found = view.now_s, dict(near)
    first = min(servers, key=lambda each: each.ready_s + each.transfer_s(prompt_tokens))
    for backend in candidates:
        if backend.endpoint.stages == ALL_STAGES:  # it may not take prompts that others have computed
            continue
        moved_tokens = max(0.0, prompt_tokens - cached.get(backend, 0.0))
        after_own_prompts_s = first.ready_s - max(0.0, backend.prefilled_at_s - now_s)
        later_s = max(0.0, after_own_prompts_s) + first.transfer_s(moved_tokens)
        pace = backend.pace
        computing_s = pace.token_s * moved_tokens
        own_s = pace.base_s + computing_s
        if later_s >= own_s + STALLED * computing_s:
            continue  # of any load
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
