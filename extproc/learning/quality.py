"""How good predictions are, in the terms that routing needs: relative error, and the order of two backends.

A plain R² would be decided by the few longest waits. What counts is how far off a typical prediction is, how
many are near enough, and how often the backend predicted to be faster was. Predictions are judged with each
backend's own correction, as in serving (see `replay`).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extproc.learning.dataset import Observations
from extproc.learning.manifest import HeldOutErrors
from extproc.learning.pairs import comparable_pairs

_NEAR = 0.2


@dataclass(frozen=True, slots=True)
class Errors:
    """How far predictions of TTFT are off, relative to the observed ones."""

    median_relative: float
    share_within_20_percent: float
    median_abs_log: float
    mean_abs_log: float


def errors_of(ttft_s: npt.NDArray[np.float64], predicted_log_ttft: npt.NDArray[np.float64]) -> Errors | None:
    """The errors of `(n,)` predictions; None without any."""
    if not len(ttft_s):
        return None
    residual = predicted_log_ttft - np.log(ttft_s)
    relative = np.abs(np.expm1(residual))
    return Errors(
        median_relative=float(np.median(relative)),
        share_within_20_percent=float((relative <= _NEAR).mean()),
        median_abs_log=float(np.median(np.abs(residual))),
        mean_abs_log=float(np.abs(residual).mean()),
    )


def held_out_errors(
    held_out: Observations, predicted_log_ttft: npt.NDArray[np.float64], tie_fraction: float
) -> HeldOutErrors:
    """Return the errors of `(n,)` predictions of log TTFT, corrections included, of at least one observation.

    `tie_fraction` is that of the pairs, see `comparable_pairs`.
    """
    errors = errors_of(held_out.ttft_s, predicted_log_ttft)
    if errors is None:
        raise ValueError("nothing was held out")
    return HeldOutErrors(
        median_relative_error=errors.median_relative,
        share_within_20_percent=errors.share_within_20_percent,
        median_abs_log_error=errors.median_abs_log,
        mean_abs_log_error=errors.mean_abs_log,
        pairwise_accuracy=comparable_pairs(held_out, tie_fraction).accuracy(predicted_log_ttft),
    )
