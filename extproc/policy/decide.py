"""The decision: guard, predict, least load, in this order. Pure; the caller reserves on the chosen backend.

The three zones behind it: with a TTFT below a second the differences are small and least load, put in time,
is as good as anything; from 1 to 10 s TTFT follows the running requests and a model earns its keep; beyond
that only sending less helps.
"""

from dataclasses import dataclass, field
from math import inf

import numpy as np
from msgspec.structs import replace

from extproc.fleet.view import FleetView
from extproc.learning.model_rules import PredictRule
from extproc.learning.predictor import Predictor
from extproc.policy.decision import Decision, Layer, Reason
from extproc.policy.expected_wait import in_time
from extproc.policy.exploration import worth_trying
from extproc.policy.least_load import SCORES, Score, least_loaded
from extproc.policy.predictive import Forecast, forecast
from extproc.request.request import Request


@dataclass(frozen=True, slots=True)
class PolicyRules:
    """The settings of layers 2 and 3, see `extproc.example.yaml`."""

    predict: PredictRule = field(default_factory=PredictRule)
    max_predicted_ttft_s: float = 5.0
    score: str = "expected_wait"

    @property
    def scored_by(self) -> Score:
        """The score of layer 3."""
        return SCORES[self.score]


def decide(
    request: Request,
    view: FleetView,
    model: Predictor | None,
    rules: PolicyRules,
    rng: np.random.Generator,
    wait_left_s: float = inf,
) -> Decision:
    """Place `request` on one of the candidates in `view`, or refuse it.

    It may wait at the server for at most `wait_left_s`, and for no longer than the guard allows every
    request: a patient client would otherwise make the queues of the servers too long for all others.
    """
    if not view.backends:
        return Decision(Layer.REJECT, Reason.NO_BACKEND)
    # A request without a body (a list of models, a health check) occupies no engine: saturation is no reason.
    # For the sake of the servers' HTTP layer these have a limit of their own.
    fit = view.fit() if request.has_body else view.admitting_bodyless()
    if wait_left_s < inf and request.has_body:
        fit = in_time(fit, wait_left_s)
    guarded = len(view) - len(fit)
    if not fit.backends:
        return replace(_nothing_fit(request, view, rules, rng, wait_left_s), guarded=guarded)
    if fit.watched.starting:
        fit = fit.unhurried()
    if fit.watched.unheard and request.is_stream:  # only of a stream is heard how long it took to begin
        tried = worth_trying(fit, request.input_tokens, rules.scored_by)
        if tried is not None:
            return Decision(Layer.LEAST_LOAD, Reason.UNHEARD, tried, fit.facts(tried), None, guarded)
    if fit.is_any_low():
        return _least_load(request, fit, rules, Reason.LOW_ZONE, rng, guarded)
    if model is None or not _is_predictable(request, rules):
        return _least_load(request, fit, rules, _why_unasked(request, rules), rng, guarded)
    considered = fit.lightest(rules.predict.max_candidates)
    said = forecast(considered, request.input_tokens, model)
    decision = _follow(considered, said, request.input_tokens, rules, rng)
    return replace(decision, guarded=decision.guarded + guarded) if guarded else decision


def _is_predictable(request: Request, rules: PolicyRules) -> bool:
    return rules.predict.is_enabled and request.api.is_generation and request.model is not None


def _why_unasked(request: Request, rules: PolicyRules) -> Reason:
    if not rules.predict.is_enabled:
        return Reason.DISABLED
    return Reason.NO_MODEL if _is_predictable(request, rules) else Reason.UNPREDICTABLE


def _nothing_fit(
    request: Request, view: FleetView, rules: PolicyRules, rng: np.random.Generator, wait_left_s: float
) -> Decision:
    """Refuse; but where all fail, and some are alive by their scrapes, have one of these answer.

    Otherwise one client whose requests make vLLM fail could take the whole fleet out for everyone else.
    """
    admitting = view.admitting()
    if admitting.backends:
        if wait_left_s < inf and not in_time(admitting, wait_left_s).backends:
            return Decision(Layer.REJECT, Reason.TOO_LATE)
        is_queue_long = request.has_body and admitting.is_any_below_limit()
        return Decision(Layer.REJECT, Reason.WAIT_TOO_LONG if is_queue_long else Reason.SATURATED)
    alive = [backend for backend in view.backends if view.has_room(backend) and view.is_alive(backend)]
    if alive:
        return _least_load(request, view.narrowed(alive), rules, Reason.ALL_FAILING, rng)
    return Decision(Layer.REJECT, Reason.FAILING)


def last_resort(
    request: Request, view: FleetView, rules: PolicyRules, rng: np.random.Generator
) -> Decision | None:
    """Place a request that no backend can take on one that is out because it failed; None where none may do.

    It has to be alive by its scrapes, to have room, and not to have failed a moment ago: then the failures
    may have been the requests' own, and a refusal could be no better.
    """
    tripped = [
        backend
        for backend in view.backends
        if backend.breaker.is_tripped
        and not backend.breaker.has_just_failed(view.now_s)
        and view.is_alive(backend)
        and view.has_room(backend)
    ]
    if not tripped:
        return None
    return _least_load(request, view.narrowed(tripped), rules, Reason.LAST_RESORT, rng, len(view))


def _follow(
    view: FleetView, said: Forecast, tokens: float, rules: PolicyRules, rng: np.random.Generator
) -> Decision:
    """Decide among candidates of the medium zone that the model has been asked about.

    Those in doubt are preferred only where they carry less load than the fastest that is believed.
    """
    limit_s, predictions, score = rules.max_predicted_ttft_s, said.predictions, rules.scored_by
    too_slow = tuple(each for each in said.trusted if predictions[each].ttft_s > limit_s)
    believed = [each for each in said.trusted if predictions[each].ttft_s <= limit_s]
    doubted = [each for each in view.backends if each not in said.trusted]
    layer, reason, chosen = Layer.REJECT, Reason.PREDICTED_SATURATED, None
    if believed:
        tied = said.fastest(believed, max(rules.predict.tie_fraction, said.promised_error))
        chosen = least_loaded(view.narrowed(tied), tokens, score, rng)
        layer, reason = Layer.PREDICT, Reason.PREDICTION_TIE if len(tied) > 1 else Reason.LOWEST_PREDICTION
        doubted = [each for each in doubted if view.load(each) < view.load(chosen)]
    if doubted:
        chosen = least_loaded(view.narrowed(doubted), tokens, score, rng)
        layer, reason = Layer.LEAST_LOAD, said.doubt(view, chosen)
    if chosen is None:
        return Decision(layer, reason, guarded=len(too_slow), predicted_saturated=too_slow)
    prediction = predictions.get(chosen)
    return Decision(layer, reason, chosen, view.facts(chosen), prediction, len(too_slow), too_slow)


def _least_load(
    request: Request,
    view: FleetView,
    rules: PolicyRules,
    reason: Reason,
    rng: np.random.Generator,
    guarded: int = 0,
) -> Decision:
    chosen = least_loaded(view, request.input_tokens, rules.scored_by, rng)
    return Decision(Layer.LEAST_LOAD, reason, chosen, view.facts(chosen), None, guarded)
