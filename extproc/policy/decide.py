"""The decision: guard, predict, least load, in this order. Pure; the caller reserves on the chosen backend.

All layers go by one estimate (`policy.expected_wait`). Where even the smallest one is below a second the
differences are small, and it is as good as anything; from there on a trained model may correct it, where that
has shown to help; beyond the guard's limit only sending less helps.
"""

from dataclasses import dataclass, field
from math import exp, inf

import numpy as np
from msgspec.structs import replace

from extproc.fleet.fleet_rules import WaitingRule
from extproc.fleet.view import FleetView
from extproc.fleet.zone import ZoneRule
from extproc.learning.model_rules import PredictRule
from extproc.policy import expected_wait, guard
from extproc.policy.decision import Decision, Layer, Prediction, Reason
from extproc.policy.exploration import worth_trying
from extproc.policy.least_load import SCORES, Score, least_loaded
from extproc.policy.predictive import CorrectionModel, corrections
from extproc.request.request import Request

_LEAST_LOAD, _LOW_ZONE = Layer.LEAST_LOAD, Reason.LOW_ZONE  # most decisions, see `fleet.view.LOW`


@dataclass(frozen=True, slots=True)
class PolicyRules:
    """The settings of layers 2 and 3, see `extproc.example.yaml`."""

    predict: PredictRule = field(default_factory=PredictRule)
    low_s: float = ZoneRule().low_s
    max_predicted_ttft_s: float = WaitingRule().burst_s
    score: str = "expected_wait"

    def scored_by(self) -> Score:
        """Return the score of layer 3."""
        return SCORES[self.score]


def decide(
    request: Request,
    view: FleetView,
    model: CorrectionModel | None,
    rules: PolicyRules,
    rng: np.random.Generator,
    wait_left_s: float = inf,
) -> Decision:
    """Place `request` on one of the candidates in `view`, or refuse it.

    It may wait at the server for at most `wait_left_s`, and for no longer than the guard allows every
    request, behind prompts and for a place together: a patient client would otherwise make the queues of the
    servers too long for all others.
    """
    if not view.backends:
        return Decision(Layer.REJECT, Reason.NO_BACKEND)
    # A request without a body (a list of models, a health check) occupies no engine: saturation is no reason.
    # For the sake of the servers' HTTP layer these have a limit of their own.
    if request.has_body:
        limit_s = min(wait_left_s, rules.max_predicted_ttft_s)
        fit, expected_s = guard.fit(view, request.input_tokens, limit_s, rules.max_predicted_ttft_s)
    else:
        fit = view.admitting_bodyless()
        expected_s = expected_wait.scores(fit, request.input_tokens)
    guarded = len(view) - len(fit)
    if fit.backends:
        decision = _placed(request, fit, expected_s, model, rules, rng)
    else:
        decision = _unfit(request, view, rules, rng, wait_left_s)
    return replace(decision, guarded=guarded) if guarded else decision


def _placed(
    request: Request,
    fit: FleetView,
    expected_s: list[float],
    model: CorrectionModel | None,
    rules: PolicyRules,
    rng: np.random.Generator,
) -> Decision:
    if fit.watched.starting and (unhurried := fit.unhurried()) is not fit:
        fit, expected_s = unhurried, expected_wait.scores(unhurried, request.input_tokens)
    if fit.watched.unheard and request.is_stream:  # only of a stream is heard how long it took to begin
        tried = worth_trying(fit, _scores(request, fit, expected_s, rules))
        if tried is not None:
            return _decision(request, fit, tried, Layer.LEAST_LOAD, Reason.UNHEARD)
    if expected_s[0] < rules.low_s or min(expected_s) < rules.low_s:  # mostly the first one tells
        return _least_load(request, fit, expected_s, rules, _LOW_ZONE, rng)
    if model is None or not _is_predictable(request, rules):
        return _least_load(request, fit, expected_s, rules, _why_unasked(request, rules), rng)
    most = rules.predict.max_candidates
    if len(fit) > most:
        numbers = sorted(range(len(fit)), key=expected_s.__getitem__)[:most]
        fit = fit.narrowed([fit.backends[number] for number in numbers])
        expected_s = [expected_s[number] for number in numbers]
    return _predict(request, fit, expected_s, model, rules, rng)


def _is_predictable(request: Request, rules: PolicyRules) -> bool:
    return rules.predict.is_enabled and request.api.is_generation and request.model is not None


def _why_unasked(request: Request, rules: PolicyRules) -> Reason:
    if not rules.predict.is_enabled:
        return Reason.DISABLED
    return Reason.NO_MODEL if _is_predictable(request, rules) else Reason.UNPREDICTABLE


def _unfit(
    request: Request, view: FleetView, rules: PolicyRules, rng: np.random.Generator, wait_left_s: float
) -> Decision:
    """Refuse; but where all fail, and some are alive by their scrapes, have one of these answer.

    Otherwise one client whose requests make vLLM fail could take the whole fleet out for everyone else.
    """
    view = view.narrowed([backend for backend in view.backends if not backend.is_asleep])
    if not view.backends:
        return Decision(Layer.REJECT, Reason.ASLEEP)
    admitting = view.admitting()
    if admitting.backends:
        if expected_wait.shortest_wait_s(admitting) > wait_left_s:
            return Decision(Layer.REJECT, Reason.TOO_LATE)
        is_queue_long = request.has_body and admitting.is_any_below_limit()
        return Decision(Layer.REJECT, Reason.WAIT_TOO_LONG if is_queue_long else Reason.SATURATED)
    alive = [backend for backend in view.backends if view.has_room(backend) and view.is_alive(backend)]
    if alive:
        view = view.narrowed(alive)
        expected_s = expected_wait.scores(view, request.input_tokens)
        return _least_load(request, view, expected_s, rules, Reason.ALL_FAILING, rng)
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
    tried = view.narrowed(tripped)
    expected_s = expected_wait.scores(tried, request.input_tokens)
    decision = _least_load(request, tried, expected_s, rules, Reason.LAST_RESORT, rng)
    return replace(decision, guarded=len(view))


def _predict(
    request: Request,
    view: FleetView,
    expected_s: list[float],
    model: CorrectionModel,
    rules: PolicyRules,
    rng: np.random.Generator,
) -> Decision:
    """Decide by the estimates, corrected where the model is trusted; where it is not they count as they
    are."""
    log_corrections = corrections(view, request.input_tokens, model)
    is_corrected = False
    for number, correction in log_corrections.items():
        if view.backends[number].predictions.is_trusted:
            expected_s[number] *= exp(correction)
            is_corrected = True
    found = expected_s if is_corrected else _scores(request, view, expected_s, rules)
    chosen = least_loaded(view, found, rng)
    if chosen not in log_corrections:
        return _decision(request, view, chosen, Layer.LEAST_LOAD, Reason.STALE_SIGNALS)
    asked = model, log_corrections[chosen]
    if view.backends[chosen].predictions.is_trusted:
        return _decision(request, view, chosen, Layer.PREDICT, Reason.LOWEST_PREDICTION, asked)
    return _decision(request, view, chosen, Layer.LEAST_LOAD, Reason.RUNNING_ERROR, asked)


def _least_load(
    request: Request,
    view: FleetView,
    expected_s: list[float],
    rules: PolicyRules,
    reason: Reason,
    rng: np.random.Generator,
) -> Decision:
    chosen = least_loaded(view, _scores(request, view, expected_s, rules), rng)
    return _decision(request, view, chosen, _LEAST_LOAD, reason)


def _scores(request: Request, view: FleetView, expected_s: list[float], rules: PolicyRules) -> list[float]:
    """Return what layer 3 compares, which is the estimate unless another score is configured."""
    score = rules.scored_by()
    return expected_s if score is expected_wait.scores else score(view, request.input_tokens)


def _decision(
    request: Request,
    view: FleetView,
    chosen: int,
    layer: Layer,
    reason: Reason,
    asked: tuple[CorrectionModel, float] | None = None,
) -> Decision:
    """Return the decision for the candidate of that number, with what was known and predicted of it."""
    backend = view.backends[chosen]
    cached_tokens = view.cached_tokens.get(backend, 0.0)
    estimate = expected_wait.expected_wait(
        backend, view.loads[chosen], request.input_tokens, cached_tokens, view.now_s
    )
    prediction = None
    if asked is not None:
        model, correction = asked
        prediction = Prediction(model.manifest.model_version, estimate.ttft_s * exp(correction))
    return Decision(layer, reason, backend, view.facts(backend, estimate), prediction)
