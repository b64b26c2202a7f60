"""The router: candidates, decision, reservation and instruction, in one step without an await."""

from math import inf

import msgspec
import numpy as np

from extproc.exchange.messages import Continue, Phase, RouteTo
from extproc.exchange.placement import Placement
from extproc.fleet.backend import Backend
from extproc.fleet.endpoint import ENDPOINT_SUFFIX
from extproc.fleet.fleet import Fleet
from extproc.fleet.registry import Registry
from extproc.fleet.view import MAX_TOKENS, CandidateFacts
from extproc.learning.model_in_use import ModelInUse
from extproc.outcomes.facts import Facts, to_metadata
from extproc.policy.decide import PolicyRules, decide
from extproc.policy.decision import Decision, DecisionCounts, Layer, Prediction, Reason
from extproc.request.request import Request
from extproc.routing.bookings import Bookings, Freed
from extproc.routing.refusal import AdmissionRules, overloaded, retry_after_s, unknown_model

MAX_MODEL_NAME = 256
"""Longer names are cut in what is recorded."""


class Router:
    """Places requests; `place` is the `Placer` of every exchange, where none is held."""

    def __init__(
        self,
        fleet: Fleet,
        registry: Registry,
        model: ModelInUse,
        policy: PolicyRules,
        admission: AdmissionRules,
        rng: np.random.Generator,
        freed: Freed = lambda backend, now_s: None,
    ) -> None:
        self.counts = DecisionCounts()
        self.bookings = Bookings(fleet.prefixes, freed)
        self._fleet = fleet
        self._registry = registry
        self._model = model
        self._policy = policy
        self._admission = admission
        self._rng = rng

    def place(self, request: Request, phase: Phase, now_s: float) -> Placement:
        """Place a request, or refuse it."""
        tried = self.attempt(request, phase, now_s)
        return tried if isinstance(tried, Placement) else self.refuse(request, tried, now_s)

    def wait_limit_s(self, request: Request) -> float:
        """Return how long a request may wait here and at a server together: its own limit, or the guard's."""
        own_s = request.wait_limit_s
        return self._policy.max_predicted_ttft_s if own_s is None else own_s

    def attempt(
        self, request: Request, phase: Phase, now_s: float, waited_s: float = 0.0
    ) -> Placement | Decision:
        """Decide, and reserve a place on the chosen backend before anything else can run.

        A request that has `waited_s` here may wait so much less at the server. Returns the decision where no
        backend can take the request now; it is not counted yet. Fails open where no backend can be chosen
        yet.
        """
        candidates = self._registry.candidates(request.model)
        if candidates is None:
            self.counts.count(Decision(Layer.REJECT, Reason.UNKNOWN_MODEL))
            return Placement(unknown_model(request.model or ""))
        cached = self._fleet.prefixes.cached_tokens(request)
        near = self._fleet.sessions.near_tokens(request, cached)
        view = self._fleet.view(candidates, now_s, cached, near)
        is_limited = waited_s > 0.0 or request.wait_limit_s is not None
        left_s = self.wait_limit_s(request) - waited_s if is_limited else inf
        decision = decide(request, view, self._model.current, self._policy, self._rng, left_s)
        if decision.reason is Reason.NO_BACKEND:
            return self.pass_through(phase)
        if decision.chosen is None or decision.facts is None:
            return decision
        self.counts.count(decision)
        if near is not cached:
            chosen = decision.chosen
            self.counts.followed_sessions += near.get(chosen, 0.0) > cached.get(chosen, 0.0)
        return self._book(request, phase, decision, decision.chosen, decision.facts, now_s)

    def refuse(self, request: Request, decision: Decision, now_s: float, waiting: int = 0) -> Placement:
        """Answer a request that no backend can take, while `waiting` others wait for its model."""
        self.counts.count(decision)
        view = self._fleet.view(self._registry.candidates(request.model) or (), now_s)
        return Placement(overloaded(decision.reason, retry_after_s(view, self._admission, waiting)))

    def pass_through(self, phase: Phase) -> Placement:
        """Fail open: without a cluster header Envoy's own pool takes over."""
        self.counts.passed_through += 1
        return Placement(Continue(phase))

    def _book(
        self,
        request: Request,
        phase: Phase,
        decision: Decision,
        backend: Backend,
        known: CandidateFacts,
        now_s: float,
    ) -> Placement:
        booking = self.bookings.open(backend, request, now_s, known.expected_cached_tokens)
        self._fleet.sessions.sent(backend, request)
        facts = decision_facts(decision, known, backend.name, request)
        cluster = backend.name if self.bookings.may_be_retried(backend) else backend.name + ENDPOINT_SUFFIX
        return Placement(RouteTo(phase, cluster, to_metadata(facts), backend.endpoint.address), booking)


def decision_facts(decision: Decision, known: CandidateFacts, backend: str, request: Request) -> Facts:
    """Return what was known and decided, to be recorded with the outcome."""
    said: Prediction | None = decision.prediction
    return Facts(
        **msgspec.structs.asdict(known),
        backend=backend,
        layer=decision.layer,
        reason=decision.reason,
        kind=request.api.kind,
        is_stream=request.is_stream,
        input_tokens=min(MAX_TOKENS, request.input_tokens),
        text_bytes=request.input_size.text_bytes,
        body_bytes=request.body_bytes,
        priority=request.priority,
        model="" if request.model is None else request.model[:MAX_MODEL_NAME],
        token_limit=request.token_limit,
        model_version=said.model_version if said else None,
        predicted_ttft_s=said.ttft_s if said else None,
    )
