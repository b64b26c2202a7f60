"""The core: one class that builds and owns all parts that decide and learn.

The sidecar, the evaluator and the tests use this same class; only what is around it differs. It knows no
clock, no file and no socket: times and random numbers are arguments.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

import numpy as np

from extproc.exchange.held_bodies import HeldBodies
from extproc.exchange.messages import Phase
from extproc.exchange.placement import Lease, Placement
from extproc.fleet.backend import Backend
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.fleet import Fleet
from extproc.fleet.fleet_rules import FleetRules
from extproc.fleet.newcomers import is_any_unheard, joining_models
from extproc.fleet.prediction_record import RankRecord
from extproc.fleet.registry import NO_BASES, Registry
from extproc.fleet.signals import Signals
from extproc.learning.model_in_use import ModelInUse, ModelOffer
from extproc.outcomes.outcome import LogEntry, Outcome
from extproc.policy.decide import PolicyRules
from extproc.policy.servers_wanted import Use, servers_wanted, use_of
from extproc.request.api import MODELS
from extproc.request.request import Request
from extproc.request.token_ratio import TokenRatios
from extproc.routing.bookings import Booking
from extproc.routing.feedback import Feedback
from extproc.routing.gateway_rules import GatewayRules
from extproc.routing.model_list import model_list
from extproc.routing.model_search import ModelSearch
from extproc.routing.queue.queue_rules import QueueRules
from extproc.routing.queue.request_queue import RequestQueue
from extproc.routing.refusal import AdmissionRules
from extproc.routing.replicas import Replicas
from extproc.routing.router import Router

CONTEXTS_EVERY_S = 0.25
"""Guessed: of thousands of servers that join at once each tells its contexts; a look at all takes 1 ms."""
MAX_SCALED = 64
"""Guessed: an autoscaler looks after few models, but a fleet may have thousands of adapters."""


@dataclass(frozen=True, slots=True)
class CoreRules:
    """The configuration of the core; without a `queue` no request is held.

    With a `gateway` requests are placed by address, and refused in the gateway's way. Where it
    `has_replicas` it reports to these what it sends.
    """

    fleet: FleetRules = field(default_factory=FleetRules)
    policy: PolicyRules = field(default_factory=PolicyRules)
    admission: AdmissionRules = field(default_factory=AdmissionRules)
    queue: QueueRules | None = None
    settle_s: float = 0.0
    gateway: GatewayRules | None = None
    max_held_bytes: int = 768 << 20
    has_replicas: bool = False


class Core:
    """The parts, and what happens to them: a request, an outcome, a scrape, a change of members or of the
    model.

    Times are seconds of one monotonic clock.
    """

    def __init__(self, rules: CoreRules, rng: np.random.Generator, first_booking: int = 0) -> None:
        self.fleet = Fleet(rules.fleet)
        self.registry = Registry(self.fleet, rules.settle_s)
        self.model = ModelInUse()
        self._ranking = RankRecord()
        self.ratios = TokenRatios()
        self._are_contexts_new = False
        self._contexts_due_s = -inf
        self.replicas = Replicas(self.registry) if rules.has_replicas else None
        self.router = Router(
            self.fleet,
            self.registry,
            self.model,
            rules.policy,
            rules.admission,
            rng,
            self._freed,
            first_booking,
            rules.gateway,
            self.replicas,
        )
        self.bodies = HeldBodies(rules.max_held_bytes, self.router.refuse_body)
        self.search = self.router.search = ModelSearch(self.registry, self._place_searched)
        self.queue = None if rules.queue is None else RequestQueue(self.router, self.registry, rules.queue)
        self.feedback = Feedback(self.registry, self.router.bookings, self.fleet.responses)

    def place(self, request: Request, phase: Phase, now_s: float) -> Placement:
        """Place a request, hold it in the queue, refuse it, or answer it where no backend is needed."""
        if request.api is MODELS:
            is_early = is_any_unheard(self.fleet.backends, now_s)
            held = self.search.hold_list(request, phase) if is_early else None
            return held or self._list_models(request, phase, now_s)
        if request.is_cut_off:
            return self.router.refuse_cut_off(request)
        if self.queue is None or request.api.is_grpc:  # clients of gRPC try again by themselves
            return self.router.place(request, phase, now_s)
        return self.queue.place(request, phase, now_s)

    def served_elsewhere(self, lease: Lease, address: str, now_s: float) -> bool:
        """Book a request on the server at `address`, which has served it; False where that is none of ours.

        The backend that was chosen is not blamed: a gateway may have had reasons of its own.
        """
        backend = self.registry.backend_at(address)
        if backend is None or not isinstance(lease, Booking):
            return False
        if lease.backend is backend or lease not in lease.backend.open:
            return False
        self.router.bookings.retried()
        self.router.bookings.move_one(lease, backend, now_s)
        return True

    def learn(self, entry: LogEntry, now_s: float) -> Outcome | None:
        """Learn from an entry of the access log; see `Feedback.learn`."""
        return self.feedback.learn(entry, now_s)

    def scraped(self, backend: Backend, signals: Signals, own_when_asked: int, now_s: float) -> None:
        """Take in a scrape that succeeded; `own_when_asked` were in flight when it was sent."""
        backend.scraped(signals, own_when_asked, now_s)
        backend.review(now_s)
        if self._are_contexts_new and now_s >= self._contexts_due_s:
            self._are_contexts_new, self._contexts_due_s = False, now_s + CONTEXTS_EVERY_S
            self.ratios.longest_prompts = self.registry.longest_prompts()
        if signals.prompt_tokens_total is not None:
            sample = backend.token_window.counter(signals.prompt_tokens_total, backend.foreign)
            if sample is not None:
                self.ratios.learn(sample, backend.name)

    def learn_models(
        self,
        backend: Backend,
        models: frozenset[str],
        context_lengths: Mapping[str, int],
        bases: Mapping[str, str] = NO_BASES,
    ) -> None:
        """Note what a server says it serves, and how long the contexts of some of the models are.

        `bases` are the models that those which are adapters belong to.
        """
        self.registry.learn_models(backend, models, bases)
        if backend.context_lengths != context_lengths:
            backend.context_lengths = context_lengths
            self._are_contexts_new = True

    def set_members(
        self, endpoints: Iterable[Endpoint], now_s: float, known_to_envoy: Iterable[Endpoint] = ()
    ) -> list[Backend]:
        """Make the fleet consist of `endpoints`.

        Returns the backends that have joined. See `Registry.apply`.
        """
        joined = self.registry.apply(endpoints, now_s, known_to_envoy)
        for backend in joined:
            self._begin_model(backend)
        return joined

    def advance(self, now_s: float) -> bool:
        """Let members settle, drain and leave as time passes; True if one has left."""
        has_left = self.registry.advance(now_s)
        self.fleet.review(now_s)
        if self.replicas is not None:
            self.replicas.review(now_s)
        self.fleet.prefixes.sweep()
        if has_left:
            self._are_contexts_new = True
            self.feedback.counts.keep_only(frozenset(member.name for member in self.registry.members))
        return has_left

    def use_model(self, offer: ModelOffer) -> bool:
        """Use an offered model from now on, if it can be used."""
        if not self.model.take(offer) or self.model.current is None:
            return False
        self._ranking = RankRecord()
        for backend in self.registry.members:
            self._begin_model(backend)
        return True

    def servers_wanted(self, now_s: float) -> dict[str, int]:
        """Return how many servers each model wants, of the first ones that wait and that are served."""
        waiting = {} if self.queue is None else self.queue.depths()
        models = [model for model in waiting if model][:MAX_SCALED] + self.registry.models()[:MAX_SCALED]
        wanted, uses = {}, dict[tuple[Backend, ...], Use]()
        for model in models:
            candidates = tuple(self.registry.candidates(model) or ())
            if candidates not in uses:  # adapters have their servers in common
                uses[candidates] = use_of(self.fleet.view(candidates, now_s))
            wanted[model] = servers_wanted(uses[candidates], waiting.get(model, 0))
        return wanted

    def _list_models(self, request: Request, phase: Phase, now_s: float) -> Placement:
        """Answer with the models of all backends; while none is known, any backend says what it serves."""
        models = tuple(sorted(joining_models(self.fleet.backends).union(self.registry.models())))
        if not models:
            return self.router.place(request, phase, now_s)
        self.router.counts.answered += 1
        return Placement(model_list(models))

    def _place_searched(self, request: Request, phase: Phase, now_s: float) -> Placement:
        place = self._list_models if request.api is MODELS else self.router.place_searched
        return place(request, phase, now_s)

    def _begin_model(self, backend: Backend) -> None:
        """Have a backend's record of predictions begin with the model in use."""
        if self.model.current is not None:
            backend.predictions.begin(self.model.current.manifest.model_version, self._ranking)

    def _freed(self, backend: Backend, now_s: float) -> None:
        if self.queue is not None:
            self.queue.freed(backend, now_s)
