"""The router: candidates, decision, reservation and instruction, in one step without an await."""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

import numpy as np

from extproc.exchange.messages import Continue, Phase, Reject, RouteTo
from extproc.exchange.placement import Placement
from extproc.fleet.backend import Backend
from extproc.fleet.endpoint import ENDPOINT_SUFFIX, GRPC_SUFFIX
from extproc.fleet.fleet import Fleet
from extproc.fleet.newcomers import is_joining
from extproc.fleet.registry import Registry
from extproc.fleet.view import CandidateFacts, FleetView
from extproc.learning.model_in_use import ModelInUse
from extproc.outcomes.facts import to_metadata
from extproc.policy.candidate_estimates import CandidateEstimate, candidate_estimates
from extproc.policy.decide import PolicyRules, decide, last_resort
from extproc.policy.decision import Decision, DecisionCounts, Layer, Reason
from extproc.policy.prefill import Prefillers, nearer_by_prefill
from extproc.request.api import Api
from extproc.request.request import Request
from extproc.request.stored_response import NO_RESPONSE
from extproc.routing.bookings import Bookings, Freed
from extproc.routing.contenders import contenders
from extproc.routing.decision_facts import decision_facts
from extproc.routing.gateway_rules import SOON_S, GatewayRules
from extproc.routing.model_search import ModelSearch
from extproc.routing.prefills import Prefilling, allowed
from extproc.routing.refusal import (
    LARGE_BODIES_RETRY_S,
    MODEL_GONE_RETRY_S,
    AdmissionRules,
    Returns,
    cut_off,
    overloaded,
    unknown_model,
    unknown_response,
)
from extproc.routing.replicas import Replicas
from extproc.routing.tenant_shares import is_crowded

_LAST_RESORT = Reason.LAST_RESORT  # it is looked at for each request, see `fleet.view.LOW`


class _Look(NamedTuple):
    """The backends as one decision has seen them, and those that may prefill the request for its backend."""

    decision: Decision
    view: FleetView
    prefillers: Prefillers | None = None


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
        first_booking: int = 0,
        gateway: GatewayRules | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        self.counts = DecisionCounts()
        self.bookings = Bookings(fleet.prefixes, freed, first_booking, replicas)
        self._fleet = fleet
        self._registry = registry
        self._model = model
        self._policy = policy
        self._returns = Returns(admission, rng.spawn(1)[0])
        self._rng = rng
        self._gateway = gateway
        self.prefilling = Prefilling(fleet, registry, rng)
        self.search: ModelSearch | None = None

    def place(self, request: Request, phase: Phase, now_s: float) -> Placement:
        """Place a request, or refuse it."""
        if request.tenant and self._has_used_its_share(request, now_s):
            self.counts.count(Decision(Layer.REJECT, Reason.TENANT_SHARE))
            return self._refused(request, Reason.TENANT_SHARE, self._bare_view(request, now_s))
        tried = self.attempt(request, phase, now_s, search=self.search)
        return tried if isinstance(tried, Placement) else self.refuse(request, phase, tried, now_s)

    def place_searched(self, request: Request, phase: Phase, now_s: float) -> Placement:
        """Place a request for whose model servers have been asked; it is not held again."""
        tried = self.attempt(request, phase, now_s)
        return tried if isinstance(tried, Placement) else self.refuse(request, phase, tried, now_s)

    def wait_limit_s(self, request: Request) -> float:
        """Return how long a request may wait here and at a server together: its own limit, or the guard's."""
        own_s = request.wait_limit_s
        return self._policy.max_predicted_ttft_s if own_s is None else own_s

    def attempt(
        self,
        request: Request,
        phase: Phase,
        now_s: float,
        waited_s: float = 0.0,
        search: ModelSearch | None = None,
    ) -> Placement | Decision:
        """Decide, and reserve a place on the chosen backend before anything else can run.

        A request that has `waited_s` here may wait so much less at the server. Returns the decision where no
        backend can take the request now; it is not counted yet. Fails open where no backend can be chosen
        yet. A request for an unknown model is held by a `search`, where that can help.
        """
        candidates = self._candidates(request)
        if candidates is None:
            held = None if search is None else search.hold(request, phase)
            return held or Placement(self._refuse_model(request, now_s))
        if request.response and not candidates and self._registry.candidates(None):
            self.counts.count(Decision(Layer.REJECT, Reason.UNKNOWN_RESPONSE))
            return Placement(unknown_response(request))
        is_limited = waited_s > 0.0 or request.wait_limit_s is not None
        left_s = self.wait_limit_s(request) - waited_s if is_limited else inf
        looked_at = self._contenders(candidates, request)
        look = self._decide(request, looked_at, now_s, left_s)
        if look.decision.chosen is None and len(looked_at) < len(candidates):
            look = self._decide(request, candidates, now_s, left_s)
        decision = look.decision
        if decision.chosen is None or decision.facts is None:
            return self.pass_through(request, phase) if decision.reason is Reason.NO_BACKEND else decision
        self.counts.count(decision)
        return self._book(request, phase, look, decision.chosen, decision.facts)

    def _contenders(self, candidates: Sequence[Backend], request: Request) -> Sequence[Backend]:
        if request.endpoints is not None:  # others are not allowed, whatever they hold
            return candidates
        return contenders(candidates, self._fleet, request, self._rng)

    def _decide(
        self, request: Request, candidates: Sequence[Backend], now_s: float, wait_left_s: float
    ) -> _Look:
        cached = self._fleet.prefixes.cached_tokens(request, candidates)
        near = nearest = self._fleet.sessions.near_tokens(request, cached)
        if self._fleet.has_adapters and request.model is not None:
            nearest = self._fleet.adapter_tokens(request.model, candidates, now_s, near)
        prefillers = None if self._gateway is None else self.prefilling.prefillers(request, now_s)
        if prefillers is not None:
            nearest = nearer_by_prefill(request.input_tokens, candidates, cached, nearest, prefillers)
        view = self._fleet.view(candidates, now_s, cached, nearest)
        decision = decide(request, view, self._model.current, self._policy, self._rng, wait_left_s)
        if near is not cached and (chosen := decision.chosen) is not None:
            self.counts.followed_sessions += near.get(chosen, 0.0) > cached.get(chosen, 0.0)
        return _Look(decision, view, prefillers)

    def refuse(
        self, request: Request, phase: Phase, decision: Decision, now_s: float, waiting: int = 0
    ) -> Placement:
        """Answer a request that no backend can take, while `waiting` others wait for its model.

        Before that one is tried that is out because it failed, see `last_resort`.
        """
        view = self._bare_view(request, now_s)
        tried = last_resort(request, view, self._policy, self._rng)
        if tried is not None and tried.chosen is not None and tried.facts is not None:
            self.counts.count(tried)
            return self._book(request, phase, _Look(tried, view), tried.chosen, tried.facts)
        self.counts.count(decision)
        return self._refused(request, decision.reason, view, waiting)

    def candidate_estimates(self, request: Request, now_s: float, most: int) -> Sequence[CandidateEstimate]:
        """Return what the best candidates have to offer a request; nothing is decided or changed."""
        candidates = self._candidates(request) or ()
        view = self._fleet.view(candidates, now_s, self._fleet.prefixes.cached_tokens(request))
        return candidate_estimates(view, request.input_tokens, most)

    def _candidates(self, request: Request) -> Sequence[Backend] | None:
        """Return the backends that may take a request; None where certainly none serves its model.

        Behind a gateway all servers have one port, whatever it speaks.
        """
        if request.api.is_grpc and self._gateway is None:
            return self._registry.speaking_grpc
        candidates: Sequence[Backend] | None = self._registry.candidates(request.model)
        if candidates and request.response:
            candidates = self._fleet.responses.candidates(request.response, candidates)
        return None if candidates is None else allowed(request, candidates)

    def _bare_view(self, request: Request, now_s: float) -> FleetView:
        """Return the view of all candidates, without what their caches hold: a refusal needs none of it."""
        return self._fleet.view(self._candidates(request) or (), now_s)

    def _refused(self, request: Request, reason: Reason, view: FleetView, waiting: int = 0) -> Placement:
        retry_s = self._returns.retry_after_s(request.model, view, waiting)
        return Placement(self._overloaded(reason, retry_s, request))

    def _overloaded(self, reason: Reason, retry_s: int, request: Request) -> Reject:
        return overloaded(reason, retry_s, request.api, is_for_gateway=self._gateway is not None)

    def _has_used_its_share(self, request: Request, now_s: float) -> bool:
        """Return whether other tenants need the places that are left more."""
        candidates = self._candidates(request)
        if not candidates or not request.has_body or not self.bookings.shares.is_used_up(request.tenant):
            return False
        return all(is_crowded(backend, now_s) for backend in candidates)

    def _refuse_model(self, request: Request, now_s: float) -> Reject:
        """Refuse a request whose model no backend serves; one that does may be coming, or coming back."""
        model = request.model or ""
        reason, retry_s = Reason.UNKNOWN_MODEL, 0.0
        if is_joining(model, self._fleet.backends):
            reason, retry_s = Reason.NO_BACKEND, SOON_S
        elif self._registry.has_lost(model, now_s):
            reason, retry_s = Reason.MODEL_GONE, MODEL_GONE_RETRY_S
        self.counts.count(Decision(Layer.REJECT, reason))
        if reason is Reason.UNKNOWN_MODEL:
            return unknown_model(model, request.api)
        return self._overloaded(reason, self._returns.spread_s(retry_s), request)

    def refuse_body(self, api: Api) -> Reject:
        """Refuse a request, of an API because Envoy holds too many large bodies."""
        self.counts.count(Decision(Layer.REJECT, Reason.LARGE_BODIES))
        return overloaded(Reason.LARGE_BODIES, self._returns.spread_s(LARGE_BODIES_RETRY_S), api)

    def refuse_cut_off(self, request: Request) -> Placement:
        """Refuse a request of whose body only the beginning is there: no server could read it."""
        self.counts.count(Decision(Layer.REJECT, Reason.CUT_OFF))
        return Placement(cut_off(request.api))

    def pass_through(self, request: Request, phase: Phase) -> Placement:
        """Fail open: without a cluster header Envoy's own pool takes over. A gateway has none."""
        if self._gateway is not None:
            self.counts.count(Decision(Layer.REJECT, Reason.NO_BACKEND))
            return Placement(self._overloaded(Reason.NO_BACKEND, self._returns.spread_s(SOON_S), request))
        self.counts.passed_through += 1
        return Placement(Continue(phase))

    def _book(
        self,
        request: Request,
        phase: Phase,
        look: _Look,
        backend: Backend,
        known: CandidateFacts,
    ) -> Placement:
        decision, view, prefillers = look
        now_s = view.now_s
        prefill = None if prefillers is None else self.prefilling.choose(request, backend, known, prefillers)
        booking = self.bookings.open(backend, request, now_s, known.expected_cached_tokens, prefill)
        self._fleet.sessions.sent(backend, request)
        facts = decision_facts(decision, known, booking)
        # All others are full where this one is the last resort, and none has a stored response but this one.
        is_only_one = decision.reason is _LAST_RESORT or request.response != NO_RESPONSE
        has_another = not is_only_one and backend.has_peers_for(request.model)
        may_be_retried = has_another and self.bookings.may_be_retried(backend)
        name = backend.name + GRPC_SUFFIX if request.api.is_grpc else backend.name
        cluster = name if may_be_retried else name + ENDPOINT_SUFFIX
        others: tuple[str, ...] = ()
        if may_be_retried and self._gateway is not None:
            others = self._gateway.others(view, backend, request)
        prefiller = "" if prefill is None else prefill.backend.endpoint.address
        address = backend.endpoint.address
        route = RouteTo(phase, cluster, to_metadata(facts), address, others, prefiller=prefiller)
        return Placement(route, booking)
