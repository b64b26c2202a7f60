"""The decision: guard, predict, least load, in this order. Pure; the caller reserves the slot.

The three zones behind it: with a TTFT below a second the differences are noise and the least loaded
backend is as good as anything; from 1 to 10 s TTFT follows the running requests and a model earns its
keep; beyond that only sending less helps.
"""

import numpy as np
from msgspec.structs import replace

from extproc.exchange.request import Request, RequestKind
from extproc.fleet.load import Bools
from extproc.fleet.view import FleetView
from extproc.learning.predictor import Predictor
from extproc.learning.track_record import TrackRecord
from extproc.policy.decision import Decision, Layer, Reason
from extproc.policy.guard import admitted
from extproc.policy.least_load import least_loaded, lightest
from extproc.policy.predictive import Forecast, fastest, forecast
from extproc.policy.rules import PolicyRules
from extproc.policy.zoning import classify, spared

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
    if view.slots.size == 0:
        return Decision(Layer.REJECT, Reason.NO_BACKEND)
    fit = admitted(view, occupies_engine=request.has_body)
    if model is not None and model.zone_classifier is not None and request.kind in _GENERATIONS:
        asked = lightest(view, fit, rules.max_candidates)
        classify(view, asked, request.input_tokens, model.zone_classifier)
        fit = spared(view, fit)
    guarded = int(view.slots.size - np.count_nonzero(fit))
    if guarded == view.slots.size:
        return replace(_nobody_fit(view, rng), guarded=guarded)
    in_low_zone = fit & view.is_low
    if np.count_nonzero(in_low_zone):
        decision = _least_load(view, in_low_zone, Reason.LOW_ZONE, rng)
    elif not rules.is_predict_enabled:
        decision = _least_load(view, fit, Reason.DISABLED, rng)
    elif request.kind not in _GENERATIONS or request.model is None:
        decision = _least_load(view, fit, Reason.UNPREDICTABLE, rng)
    elif model is None:
        decision = _least_load(view, fit, Reason.NO_MODEL, rng)
    else:
        considered = lightest(view, fit, rules.max_candidates)
        said = forecast(view, considered, request.input_tokens, model, record)
        decision = _heed(view, considered, said, rules, rng)
    return replace(decision, guarded=decision.guarded + guarded) if guarded else decision


def _nobody_fit(view: FleetView, rng: np.random.Generator) -> Decision:
    """Refuse; but where all fail, and some are alive by their scrapes, have one of these answer.

    Otherwise one client whose requests make vLLM fail could take the whole fleet out for everybody.
    """
    if view.is_admitting.any():
        return Decision(Layer.REJECT, Reason.SATURATED)
    alive = view.is_fresh & view.has_room
    if alive.any():
        return _least_load(view, alive, Reason.ALL_FAILING, rng)
    return Decision(Layer.REJECT, Reason.FAILING)


def _heed(
    view: FleetView, considered: Bools, said: Forecast, rules: PolicyRules, rng: np.random.Generator
) -> Decision:
    """Everybody considered is in the medium zone, and the model has been asked about them.

    Those in doubt are preferred only where they carry less load than the fastest that is believed.
    """
    too_slow = said.is_heeded & (said.ttft_s > rules.max_predicted_ttft_s)
    slots_too_slow = tuple(int(slot) for slot in view.slots[too_slow])
    believed, doubted = said.is_heeded & ~too_slow, considered & ~said.is_heeded
    layer, reason, position = Layer.REJECT, Reason.PREDICTED_SATURATED, -1
    if believed.any():
        tied = fastest(said, believed, rules.tie_fraction)
        position = least_loaded(view, tied, rng)
        is_tie = np.count_nonzero(tied) > 1
        layer, reason = Layer.PREDICT, Reason.PREDICTION_TIE if is_tie else Reason.LOWEST_PREDICTION
        doubted &= view.load < view.load[position]
    if doubted.any():
        position = least_loaded(view, doubted, rng)
        layer, reason = Layer.LEAST_LOAD, said.doubt(view, position)
    if position < 0:
        return Decision(layer, reason, None, None, len(slots_too_slow), slots_too_slow)
    prediction = said.prediction(position)
    return Decision(layer, reason, view.candidate(position), prediction, len(slots_too_slow), slots_too_slow)


def _least_load(view: FleetView, allowed: Bools, reason: Reason, rng: np.random.Generator) -> Decision:
    return Decision(Layer.LEAST_LOAD, reason, view.candidate(least_loaded(view, allowed, rng)))
