"""The router: candidates, decision, reservation and instruction, in one step without an await.

It owns what changes with a decision: the in-flight slot, the latched guard, the counters, and the windows
from which tokens per byte are learned.
"""

from dataclasses import dataclass

import numpy as np

from extproc.exchange.messages import Continue, Phase, RouteTo
from extproc.exchange.placement import Lease, Placement
from extproc.exchange.request import Request
from extproc.exchange.token_learning import TokenLearning
from extproc.fleet.fleet import Fleet
from extproc.fleet.registry import Registry
from extproc.fleet.view import Candidate
from extproc.learning.slot import ModelSlot
from extproc.learning.track_record import TrackRecord
from extproc.outcomes.facts import Facts, to_metadata
from extproc.policy.admission import AdmissionRules, overloaded, retry_after_s, unknown_model
from extproc.policy.counts import DecisionCounts
from extproc.policy.decide import decide
from extproc.policy.decision import Decision, Layer, Reason
from extproc.policy.rules import PolicyRules

MAX_MODEL_NAME = 256
"""Longer names are cut in what is recorded."""


@dataclass(frozen=True, slots=True)
class RouterRules:
    """The settings of the layers."""

    policy: PolicyRules
    admission: AdmissionRules


class Router:
    """Places requests; `place` is the `Placer` of every exchange."""

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
        self._fleet = fleet
        self._registry = registry
        self._models = models
        self._record = record
        self._tokens = tokens
        self._rules = rules
        self._rng = rng

    def place(self, request: Request, phase: Phase, now_s: float) -> Placement:
        """Decide, and reserve the chosen backend's slot before anything else can run.

        Fails open where no backend can be chosen yet: without a cluster header Envoy's own pool takes over.
        """
        slots = self._registry.candidates(request.model)
        if slots is None:
            self.counts.count(Decision(Layer.REJECT, Reason.UNKNOWN_MODEL))
            return Placement(unknown_model(request.model or ""))
        view = self._fleet.view(slots, now_s)
        decision = decide(request, view, self._models.current, self._record, self._rules.policy, self._rng)
        for slot in decision.predicted_saturated:
            self._fleet.latch_saturated(slot)
        if decision.reason is Reason.NO_BACKEND:
            self.counts.passed_through += 1
            return Placement(Continue(phase))
        self.counts.count(decision)
        if decision.chosen is None:
            wait_s = retry_after_s(self._fleet, slots, self._rules.admission, now_s)
            return Placement(overloaded(decision.reason, wait_s))
        backend = self._registry.name_of(decision.chosen.slot)
        lease = self._reserve(decision.chosen.slot, request, now_s)
        facts = recorded(decision, decision.chosen, backend, request)
        return Placement(RouteTo(phase, backend, to_metadata(facts)), lease)

    def _reserve(self, slot: int, request: Request, now_s: float) -> Lease:
        self._fleet.reserve(slot, now_s, request.input_tokens if request.has_body else 0.0)
        self._tokens.sent(slot, request)

        def release(then_s: float) -> None:
            self._fleet.release(slot, then_s)
            self._tokens.finished(slot, request)

        return Lease(release)


def recorded(decision: Decision, chosen: Candidate, backend: str, request: Request) -> Facts:
    """What was known and decided, to be recorded with the outcome."""
    said = decision.prediction
    return Facts(
        backend=backend,
        layer=decision.layer,
        reason=decision.reason,
        zone=chosen.zone,
        kind=request.kind,
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
        model_version=said.model_version if said else None,
        model_log_ttft=said.model_log_ttft if said else None,
        predicted_ttft_s=said.ttft_s if said else None,
    )
