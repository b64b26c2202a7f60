"""The decision: guard, predict, least load, in this order. Pure; the caller reserves the slot.

The three zones behind it: with a TTFT below a second the differences are small and least load, put in time,
is as good as anything; from 1 to 10 s TTFT follows the running requests and a model earns its keep; beyond
that only sending less helps.
"""

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from extproc.fleet.prediction_record import TrackRecord
from extproc.fleet.view import FleetView
from extproc.learning.predictor import Predictor
from extproc.policy.decision import Decision, Layer, Reason
from extproc.policy.guard import admitted
from extproc.policy.least_load import lightest, soonest
from extproc.policy.policy_rules import PolicyRules
from extproc.policy.predictive import Forecast, fastest, forecast
from extproc.request.request import Request, RequestKind

_GENERATIONS = frozenset({RequestKind.CHAT, RequestKind.COMPLETION, RequestKind.RESPONSES})


def decide(
    request: Request,
    view: FleetView,
    model: Predictor | None,
    record: TrackRecord,
    rules: PolicyRules,
    rng: np.random.Generator,
) -> Decision:
    """Place `request` on one of the candidates in `view`, or refuse it."""
    if not view.states:
        return Decision(Layer.REJECT, Reason.NO_BACKEND)
    fit = admitted(view, occupies_engine=request.has_body)
    guarded = len(view) - len(fit)
    if not fit:
        return replace(_nobody_fit(request, view, rng), guarded=guarded)
    if view.is_any_low(fit):
        return _least_load(request, view, fit, Reason.LOW_ZONE, rng, guarded)
    if model is None or not _is_predictable(request, rules):
        return _least_load(request, view, fit, _why_unasked(request, rules), rng, guarded)
    considered = lightest(view, fit, rules.max_candidates)
    said = forecast(view, considered, request.input_tokens, model, record)
    decision = _heed(view, considered, said, request.input_tokens, rules, rng)
    return replace(decision, guarded=decision.guarded + guarded) if guarded else decision


def _is_predictable(request: Request, rules: PolicyRules) -> bool:
    return rules.is_predict_enabled and request.kind in _GENERATIONS and request.model is not None


def _why_unasked(request: Request, rules: PolicyRules) -> Reason:
    if not rules.is_predict_enabled:
        return Reason.DISABLED
    return Reason.NO_MODEL if _is_predictable(request, rules) else Reason.UNPREDICTABLE


def _nobody_fit(request: Request, view: FleetView, rng: np.random.Generator) -> Decision:
    """Refuse; but where all fail, and some are alive by their scrapes, have one of these answer.

    Otherwise one client whose requests make vLLM fail could take the whole fleet out for everybody.
    """
    admitting = view.admitting()
    if admitting:
        is_queue_long = any(map(view.is_below_limit, admitting))
        return Decision(Layer.REJECT, Reason.WAIT_TOO_LONG if is_queue_long else Reason.SATURATED)
    alive = [position for position in range(len(view)) if view.has_room(position) and view.is_alive(position)]
    if alive:
        return _least_load(request, view, alive, Reason.ALL_FAILING, rng)
    return Decision(Layer.REJECT, Reason.FAILING)


def _heed(
    view: FleetView,
    considered: Sequence[int],
    said: Forecast,
    tokens: float,
    rules: PolicyRules,
    rng: np.random.Generator,
) -> Decision:
    """Everybody considered is in the medium zone, and the model has been asked about them.

    Those in doubt are preferred only where they carry less load than the fastest that is believed.
    """
    limit_s, predictions = rules.max_predicted_ttft_s, said.predictions
    too_slow = tuple(view.states[one].slot for one in said.heeded if predictions[one].ttft_s > limit_s)
    believed = [one for one in said.heeded if predictions[one].ttft_s <= limit_s]
    doubted = [one for one in considered if one not in said.heeded]
    layer, reason, position = Layer.REJECT, Reason.PREDICTED_SATURATED, -1
    if believed:
        tied = fastest(said, believed, max(rules.tie_fraction, said.promised_error))
        position = soonest(view, tied, tokens, rng)
        layer, reason = Layer.PREDICT, Reason.PREDICTION_TIE if len(tied) > 1 else Reason.LOWEST_PREDICTION
        doubted = [one for one in doubted if view.load[one] < view.load[position]]
    if doubted:
        position = soonest(view, doubted, tokens, rng)
        layer, reason = Layer.LEAST_LOAD, said.doubt(view, position)
    if position < 0:
        return Decision(layer, reason, None, None, len(too_slow), too_slow)
    prediction = predictions.get(position)
    return Decision(layer, reason, view.candidate(position), prediction, len(too_slow), too_slow)


def _least_load(
    request: Request,
    view: FleetView,
    allowed: Sequence[int],
    reason: Reason,
    rng: np.random.Generator,
    guarded: int = 0,
) -> Decision:
    chosen = view.candidate(soonest(view, allowed, request.input_tokens, rng))
    return Decision(Layer.LEAST_LOAD, reason, chosen, None, guarded)
