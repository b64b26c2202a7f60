"""The gate: whether a challenger may replace the incumbent, or the plain estimate.

All are judged on the newest samples, which the challenger was not made from: how far off each would have been
about these requests. The measure is the mean absolute log error, which is also what a sidecar goes by.
"""

import numpy as np
import numpy.typing as npt

from extproc.learning.dataset import Observations
from extproc.learning.manifest import HeldOutErrors, Verdict
from extproc.learning.model_rules import GateRule
from extproc.learning.predictor import Predictor
from extproc.learning.quality import comparable_pairs, held_out_errors

_TWO_DEVIATIONS = 1.0
"""Twice the largest standard deviation that a share has, times the square root of the number of cases."""


def corrected(predictor: Predictor, observed: Observations) -> npt.NDArray[np.float64]:
    """Return the logarithms of the corrected estimates, `(n,)`."""
    return np.log(observed.estimate_s) + predictor.log_corrections(observed.features)


def corrected_errors(predictor: Predictor, held_out: Observations) -> HeldOutErrors:
    """Return the errors of the estimate on `held_out` as this model corrects it."""
    return held_out_errors(held_out, corrected(predictor, held_out))


def judge(
    challenger: Predictor,
    errors: HeldOutErrors,
    incumbent: Predictor | None,
    held_out: Observations,
    rule: GateRule,
) -> Verdict:
    """Return the verdict on a challenger with these `errors` on `held_out`."""
    plain = held_out_errors(held_out, np.log(held_out.estimate_s))
    error, plain_error = errors.mean_abs_log_error, plain.mean_abs_log_error
    known = None if incumbent is None else corrected_errors(incumbent, held_out).mean_abs_log_error
    faults = []
    if errors.median_relative_error > rule.max_median_error:
        faults.append(f"its median relative error is {errors.median_relative_error:.0%}")
    if not error <= plain_error * (1 - rule.margin):
        faults.append(
            f"its error of {error:.4f} is not {rule.margin:.0%} below that of the estimate alone,"
            f" {plain_error:.4f}"
        )
    faults += _wrong_order(errors.pairwise_accuracy, plain.pairwise_accuracy, held_out)
    if known is not None and not error <= known * (1 - rule.margin):
        faults.append(f"its error of {error:.4f} is not {rule.margin:.0%} below the incumbent's {known:.4f}")
    return Verdict(
        is_accepted=not faults,
        reason="; ".join(faults) or f"better than {'the incumbent' if incumbent else 'the estimate alone'}",
        error=error,
        plain_error=plain_error,
        incumbent_error=known,
        incumbent_version=incumbent.manifest.model_version if incumbent else None,
        margin=rule.margin,
        samples=len(held_out),
    )


def _wrong_order(by_model: float | None, by_estimate: float | None, held_out: Observations) -> list[str]:
    """Return the fault of a model that predicts well, and ranks backends worse than without it."""
    if by_model is None or by_estimate is None:
        return []
    if by_model >= by_estimate - _TWO_DEVIATIONS / len(comparable_pairs(held_out)) ** 0.5:
        return []
    return [f"it picks the faster of two backends in {by_model:.1%}, the estimate alone in {by_estimate:.1%}"]
