"""Prompts that a server computes for another one: their place there, and what is learned from them."""

from collections.abc import Sequence

import numpy as np

from extproc.exchange.placement import Lease
from extproc.fleet.backend import Backend
from extproc.fleet.fleet import Fleet
from extproc.fleet.registry import Registry
from extproc.fleet.sent_prefixes import SentPrefixes
from extproc.fleet.view import CandidateFacts
from extproc.outcomes.outcome import Outcome
from extproc.policy.prefill import PrefillChoice, Prefillers, prefill_elsewhere, prefillers_of
from extproc.request.request import Request
from extproc.routing.contenders import some_of
from extproc.routing.replicas import Replicas

MOST_LOOKED_AT = 32
"""Guessed: of more prefill servers this many are taken at random; the best of these is nearly that of all."""


class Prefill(Lease):
    """One prompt, from the decision until its first token, or until its request ends without one.

    It counts on the prefill server as a request in flight, with its prompt and its prefix. It is reported to
    `replicas` by a `number` of its own.
    """

    __slots__ = ("_number", "_replicas", "_request", "backend", "choice", "prompt")

    def __init__(
        self,
        choice: PrefillChoice,
        request: Request,
        believed_tokens: int,
        prefixes: SentPrefixes,
        now_s: float,
        number: int,
        replicas: Replicas | None,
    ) -> None:
        super().__init__()
        self.choice = choice
        self._number = number
        self._replicas = replicas
        self.backend = backend = choice.backend
        self._request = request
        self.prompt = prefixes.sent(backend, request.prefix, request.input_tokens, choice.cached_tokens)
        backend.reserve(now_s)
        new_tokens = max(0.0, believed_tokens - choice.cached_tokens)
        backend.expect_prompt(self, new_tokens, now_s)
        if replicas is not None:
            replicas.sent(number, backend, new_tokens)
        backend.token_window.sent(request.model, request.input_size)

    def computed(self, now_s: float) -> None:
        """End it with the first token; what waits there behind it does so no longer than for itself."""
        self.backend.prompt_computed(self, now_s)
        self.end(now_s)

    def learn(self, outcome: Outcome, now_s: float) -> None:
        """Learn what the transfer cost, and what was in the cache, by the usage in the response."""
        choice, sample = self.choice, outcome.sample
        if sample.failure is not None:
            self.backend.token_window.spoil()
            return
        self.backend.answered()
        if sample.cached_tokens is not None:
            self.backend.cache.found(choice.cached_tokens, sample.cached_tokens)
        if sample.ttft_s is not None:
            self.backend.transfer.learn(
                choice.moved_tokens, choice.ttft_without_transfer_s, sample.ttft_s, now_s
            )

    def _release(self, now_s: float) -> None:
        self.backend.give_back_prompt(self)
        if self._replicas is not None:
            self._replicas.ended(self._number)
        self.backend.release(now_s)
        self.backend.token_window.finished(self._request.input_size)


class Prefilling:
    """Decides where prompts are prefilled, behind a gateway; `placed` counts those that are so elsewhere."""

    def __init__(self, fleet: Fleet, registry: Registry, rng: np.random.Generator) -> None:
        self._fleet = fleet
        self._registry = registry
        self._rng = rng
        self.placed = 0

    def prefillers(self, request: Request, now_s: float) -> Prefillers | None:
        """Return the servers that may prefill a request for another one; None where there are none."""
        if not (self._registry.only_prefilling and request.has_body and request.api.is_generation):
            return None
        found = self._looked_at(request)
        if not found:
            return None
        view = self._fleet.view(found, now_s, self._fleet.prefixes.cached_tokens(request, found))
        return prefillers_of(request.input_tokens, view)

    def choose(
        self, request: Request, chosen: Backend, known: CandidateFacts, prefillers: Prefillers
    ) -> PrefillChoice | None:
        """Return where to prefill a request that the `chosen` server answers; None for that server itself."""
        if not chosen.endpoint.takes_prefilled:
            return None
        choice = prefill_elsewhere(request.input_tokens, chosen, known, prefillers)
        self.placed += choice is not None
        return choice

    def _looked_at(self, request: Request) -> Sequence[Backend]:
        found: Sequence[Backend] = allowed(request, self._registry.prefillers(request.model))
        if len(found) <= MOST_LOOKED_AT:
            return found
        return list(some_of(found, MOST_LOOKED_AT, self._rng))


def allowed(request: Request, backends: Sequence[Backend]) -> Sequence[Backend]:
    """Return those backends that a gateway allows for a request."""
    addresses = request.endpoints
    if addresses is None:
        return backends
    return [
        each for each in backends if each.endpoint.address in addresses or each.endpoint.host in addresses
    ]
