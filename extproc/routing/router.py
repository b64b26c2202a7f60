"""The router: candidates, decision, reservation and instruction, in one step without an await.

It owns what changes with a decision: the in-flight slot, the latched guard, the counters, and the windows
from which tokens per byte are learned.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from extproc.exchange.messages import Continue, Phase, RouteTo
from extproc.exchange.placement import Lease, Placement
from extproc.fleet.backend import ENDPOINT_SUFFIX
from extproc.fleet.fleet import Fleet
from extproc.fleet.prediction_record import TrackRecord
from extproc.fleet.registry import Registry
from extproc.fleet.view import Candidate
from extproc.learning.model_in_use import ModelSlot
from extproc.outcomes.facts import Facts, to_metadata
from extproc.policy.affinity import cached_tokens
from extproc.policy.decide import decide
from extproc.policy.decision import Decision, Layer, Reason
from extproc.policy.decision_counts import DecisionCounts
from extproc.policy.policy_rules import PolicyRules
from extproc.request.request import Request
from extproc.request.token_learning import TokenLearning
from extproc.routing.bookings import Booking, Bookings
from extproc.routing.refusal import AdmissionRules, overloaded, retry_after_s, unknown_model

MAX_MODEL_NAME = 256
"""Longer names are cut in what is recorded."""


@dataclass(frozen=True, slots=True)
class RouterRules:
    """The settings of the layers."""

    policy: PolicyRules
    admission: AdmissionRules


class Router:
    """Places requests; `place` is the `Placer` of every exchange, where none is held.

    `freed` is told of every slot that is given back.
    """

    def __init__(
        self,
        fleet: Fleet,
        registry: Registry,
        models: ModelSlot,
        record: TrackRecord,
        tokens: TokenLearning,
        rules: RouterRules,
        rng: np.random.Generator,
    ) -> None:
        self.counts = DecisionCounts()
        self.freed: Callable[[int, float], None] | None = None
        self._fleet = fleet
        self._registry = registry
        self._models = models
        self._record = record
        self.bookings = Bookings(fleet, tokens)
        self._rules = rules
        self._rng = rng

    def place(self, request: Request, phase: Phase, now_s: float) -> Placement:
        """Place a request, or refuse it."""
        tried = self.attempt(request, phase, now_s)
        return tried if isinstance(tried, Placement) else self.refuse(request, tried, now_s)

    def attempt(self, request: Request, phase: Phase, now_s: float) -> Placement | Decision:
        """Decide, and reserve the chosen backend's slot before anything else can run.

        Returns the decision where it is that nobody can take the request now; it is not counted yet. Fails
        open where no backend can be chosen yet.
        """
        slots = self._registry.candidates(request.model)
        if slots is None:
            self.counts.count(Decision(Layer.REJECT, Reason.UNKNOWN_MODEL))
            return Placement(unknown_model(request.model or ""))
        view = self._fleet.view(slots, now_s, cached_tokens(request, self._fleet.prefixes))
        decision = decide(request, view, self._models.current, self._record, self._rules.policy, self._rng)
        for slot in decision.predicted_saturated:
            self._fleet.latch_saturated(slot)
        if decision.reason is Reason.NO_BACKEND:
            return self.pass_through(phase)
        if decision.chosen is None:
            return decision
        self.counts.count(decision)
        backend, address = self._registry.name_and_address_of(decision.chosen.slot)
        booking = self.bookings.open(decision.chosen.slot, request, now_s, decision.chosen.cached_tokens)
        lease = Lease(partial(self._release, booking))
        facts = recorded(decision, decision.chosen, backend, request)
        may_be_retried = self.bookings.may_be_retried(decision.chosen.slot)
        cluster = backend if may_be_retried else backend + ENDPOINT_SUFFIX
        return Placement(RouteTo(phase, cluster, to_metadata(facts), address), lease)

    def refuse(self, request: Request, decision: Decision, now_s: float, waiting: int = 0) -> Placement:
        """The answer to a request that nobody can take, and for whose model so many others wait."""
        self.counts.count(decision)
        slots = self._registry.candidates(request.model) or ()
        wait_s = retry_after_s(self._fleet, slots, self._rules.admission, now_s, waiting)
        return Placement(overloaded(decision.reason, wait_s))

    def pass_through(self, phase: Phase) -> Placement:
        """Fail open: without a cluster header Envoy's own pool takes over."""
        self.counts.passed_through += 1
        return Placement(Continue(phase))

    def _release(self, booking: Booking, now_s: float) -> None:
        self.bookings.close(booking, now_s)
        if self.freed is not None:
            self.freed(booking.slot, now_s)


def recorded(decision: Decision, chosen: Candidate, backend: str, request: Request) -> Facts:
    """What was known and decided, to be recorded with the outcome."""
    said = decision.prediction
    return Facts(
        backend=backend,
        layer=decision.layer,
        reason=decision.reason,
        zone=chosen.zone,
        kind=request.api.kind,
        is_stream=request.is_stream,
        num_running=chosen.num_running,
        load=chosen.load,
        num_waiting=chosen.num_waiting,
        kv_cache_fraction=chosen.kv_cache_fraction,
        own=chosen.own,
        foreign=chosen.foreign,
        input_tokens=request.input_tokens,
        text_bytes=request.input_size.text_bytes,
        body_bytes=request.body_bytes,
        priority=request.priority,
        scrape_age_s=chosen.scrape_age_s,
        model=request.model if request.model is None else request.model[:MAX_MODEL_NAME],
        token_limit=request.token_limit,
        expected_cached_tokens=chosen.cached_tokens,
        model_version=said.model_version if said else None,
        model_log_ttft=said.model_log_ttft if said else None,
        predicted_ttft_s=said.ttft_s if said else None,
    )
