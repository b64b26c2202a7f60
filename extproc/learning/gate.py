"""The gate: whether a challenger may replace the incumbent.

Both are judged on the newest samples, which the challenger was not made from, as a sidecar would be served
that loaded either of them now: each starts with the offsets of its own file and learns its corrections from
outcomes on the way. So an incumbent that no longer fits the fleet pays for every outcome that it takes to
notice. The measure is the mean absolute log error, which is also what the sidecar holds against the promise.
"""

import numpy as np

from extproc.learning.baselines import least_load
from extproc.learning.dataset import Observations
from extproc.learning.features import MONOTONE
from extproc.learning.manifest import HeldOutErrors, Verdict
from extproc.learning.model_rules import GateRule
from extproc.learning.predictor import Predictor
from extproc.learning.quality import comparable_pairs, held_out_errors
from extproc.learning.served_replay import replay

_TWO_DEVIATIONS = 1.0
"""Twice the largest standard deviation that a share has, times the square root of the number of cases."""

_REASONABLE = 10.0
"""Guessed: a prediction may leave the zone that the model is for by this factor, but not more."""


def served_errors(predictor: Predictor, held_out: Observations, tie_fraction: float) -> HeldOutErrors:
    """Return the errors on `held_out`, in the order of time, of a sidecar that starts with this model."""
    offsets = predictor.manifest.offsets
    start = np.array([offsets.get(name, 0.0) for name in held_out.fleet])
    served = replay(predictor.predict_log_ttft(held_out.features), held_out, start)
    return held_out_errors(held_out, served, tie_fraction)


def judge(
    challenger: Predictor,
    errors: HeldOutErrors,
    incumbent: Predictor | None,
    held_out: Observations,
    rule: GateRule,
) -> Verdict:
    """The verdict on a challenger with these `errors` on `held_out`."""
    known = None if incumbent is None else served_errors(incumbent, held_out, rule.tie_fraction)
    incumbent_error = None if known is None else known.mean_abs_log_error
    faults = _faults(challenger, held_out) + _uselessness(errors, held_out, rule)
    if incumbent_error is not None and errors.mean_abs_log_error > incumbent_error * (1 - rule.margin):
        faults.append(
            f"its error of {errors.mean_abs_log_error:.4f} is not {rule.margin:.0%} below"
            f" the incumbent's {incumbent_error:.4f}"
        )
    return Verdict(
        is_accepted=not faults,
        reason="; ".join(faults) or ("better than the incumbent" if incumbent else "there was no incumbent"),
        error=errors.mean_abs_log_error,
        incumbent_error=incumbent_error,
        incumbent_version=incumbent.manifest.model_version if incumbent else None,
        margin=rule.margin,
        samples=len(held_out),
    )


def _uselessness(errors: HeldOutErrors, held_out: Observations, rule: GateRule) -> list[str]:
    """Why nobody should heed a model with these errors, whatever it is to replace."""
    faults = []
    if errors.median_relative_error > rule.max_median_error:
        faults.append(f"its median relative error is {errors.median_relative_error:.0%}")
    pairs = comparable_pairs(held_out, rule.tie_fraction)
    by_model, by_load = errors.pairwise_accuracy, pairs.accuracy(least_load(held_out))
    if by_model is None or by_load is None:
        return faults
    if by_model < by_load - _TWO_DEVIATIONS / len(pairs) ** 0.5:
        faults.append(f"it picks the faster of two backends in {by_model:.1%}, least load in {by_load:.1%}")
    return faults


def _faults(challenger: Predictor, held_out: Observations) -> list[str]:
    """What no model may do: predictions that are not finite, out of all proportion, or not monotone."""
    predicted = challenger.predict_log_ttft(held_out.features)
    zone = challenger.manifest.zone_bounds
    lowest, highest = np.log(zone.low_s / _REASONABLE), np.log(zone.saturated_s * _REASONABLE)
    faults = []
    if not np.isfinite(predicted).all():
        faults.append("a prediction is not finite")
    elif not ((predicted >= lowest) & (predicted <= highest)).all():
        faults.append("a prediction is out of all proportion to its zone")
    for index, direction in enumerate(MONOTONE):
        raised = held_out.features.copy()
        raised[:, index] = raised[:, index] * 1.5 + 1
        if direction and (direction * (challenger.predict_log_ttft(raised) - predicted) < 0).any():
            faults.append(f"a larger {challenger.manifest.features[index]} shortens a prediction")
    return faults
