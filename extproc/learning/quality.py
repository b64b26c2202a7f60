"""How good predictions are, in the terms that routing needs: relative error, and the order of two backends.

A plain R² would be decided by the few longest waits. What counts is how far off a typical prediction is, how
many are near enough, and how often the backend predicted to be faster was.
"""

import numpy as np
import numpy.typing as npt

from extproc.learning.dataset import Observations
from extproc.learning.manifest import HeldOutErrors

_PAIR_WITHIN_S = 2.0
_SAME_TTFT = 0.05
"""The policy's own tie: who is closer than 5 % to the other is not slower."""

_MIN_PAIRS = 50


def held_out_errors(held_out: Observations, predicted_log_ttft: npt.NDArray[np.float64]) -> HeldOutErrors:
    """The errors of `(n,)` predictions of log TTFT, corrections included, for at least one observation."""
    residual = predicted_log_ttft - np.log(held_out.ttft_s)
    relative = np.abs(np.expm1(residual))
    return HeldOutErrors(
        median_relative_error=float(np.median(relative)),
        share_within_20_percent=float((relative <= 0.2).mean()),
        median_abs_log_error=float(np.median(np.abs(residual))),
        pairwise_accuracy=pairwise_accuracy(held_out, predicted_log_ttft),
    )


def pairwise_accuracy(observed: Observations, predicted_log_ttft: npt.NDArray[np.float64]) -> float | None:
    """How often the prediction knew which of two requests waited longer; None below 50 pairs.

    A pair is a sample and the next one in time, if that is on another backend, at most 2 s later, and if
    their TTFTs differ by more than 5 %. Equal predictions are half right. The two requests differ in more
    than the backend, so this measures order in general: what routing needs, not only what it does.
    """
    first, second = np.arange(len(observed) - 1), np.arange(1, len(observed))
    actual = np.diff(np.log(observed.ttft_s))
    is_pair = (
        (observed.backend[first] != observed.backend[second])
        & (np.diff(observed.at_s) <= _PAIR_WITHIN_S)
        & (np.abs(actual) > np.log1p(_SAME_TTFT))
    )
    if is_pair.sum() < _MIN_PAIRS:
        return None
    agreement = np.sign(actual[is_pair]) * np.sign(np.diff(predicted_log_ttft)[is_pair])
    return float((agreement.mean() + 1) / 2)
