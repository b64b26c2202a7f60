"""How good predictions are, in the terms that routing needs: relative error, and the order of two backends.

A plain R² would be decided by the few longest waits. The measures are how far off a typical prediction is,
how many are near enough, and how often the backend predicted to be faster was.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES
from extproc.learning.manifest import HeldOutErrors

MIN_PAIRS = 50
"""Fewer say nothing: the standard error of their accuracy is up to 0.07."""

_WITHIN_S = 1.0
_SAME_LENGTH = 0.25

_EQUALLY_LONG = 0.2
"""As in the demands on the estimate."""

_FOLLOWING = 8
"""How many of the next samples one is compared with, so that a busy second does not outweigh all others."""

_INPUT = FEATURES.index("input_tokens")


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """`(n_pairs,)` indices of two samples each, and the sign of how much slower the second one truly was.

    A router chooses between backends for one request, and only ever sees one of the two answers. Nearest to
    seeing both are two requests of about the same length that met different backends at about the same time.
    """

    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    slower: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.first)

    def within(self, rows: npt.NDArray[np.bool_]) -> "Pairs":
        """Return the pairs of which both samples are among `rows`, a mask of all samples."""
        keep = rows[self.first] & rows[self.second]
        return Pairs(self.first[keep], self.second[keep], self.slower[keep])

    def accuracy(self, score: npt.NDArray[np.float64]) -> float | None:
        """Return how often the `(n,)` score had the order right, a tie half; None below `MIN_PAIRS`.

        Any score will do that is larger where a longer TTFT is expected.
        """
        if len(self) < MIN_PAIRS:
            return None
        agreement = self.slower * np.sign(score[self.second] - score[self.first])
        return float((agreement.mean() + 1) / 2)


def comparable_pairs(observed: Observations) -> Pairs:
    """Return samples on different backends, at most 1 s apart, of similar input lengths.

    Their TTFTs differ by more than a fifth: of smaller differences no request would profit.
    """
    log_ttft = np.log(observed.ttft_s)
    log_length = np.log1p(observed.features[:, _INPUT])
    firsts, seconds = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    for lag in range(1, min(_FOLLOWING, len(observed) - 1) + 1):
        first = np.arange(len(observed) - lag)
        second = first + lag
        is_pair = (
            (observed.backend[first] != observed.backend[second])
            & (observed.at_s[second] - observed.at_s[first] <= _WITHIN_S)
            & (np.abs(log_length[second] - log_length[first]) <= np.log1p(_SAME_LENGTH))
            & (np.abs(log_ttft[second] - log_ttft[first]) > np.log1p(_EQUALLY_LONG))
        )
        firsts.append(first[is_pair])
        seconds.append(second[is_pair])
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    return Pairs(first, second, np.sign(log_ttft[second] - log_ttft[first]))


_NEAR = 0.2


@dataclass(frozen=True, slots=True)
class Errors:
    """How far predictions of TTFT are off, relative to the observed ones."""

    median_relative: float
    share_within_20_percent: float
    median_abs_log: float
    mean_abs_log: float


def errors_of(ttft_s: npt.NDArray[np.float64], predicted_log_ttft: npt.NDArray[np.float64]) -> Errors | None:
    """Return the errors of `(n,)` predictions; None without any."""
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


def held_out_errors(held_out: Observations, predicted_log_ttft: npt.NDArray[np.float64]) -> HeldOutErrors:
    """Return the errors of `(n,)` predictions of log TTFT, of at least one observation."""
    errors = errors_of(held_out.ttft_s, predicted_log_ttft)
    if errors is None:
        raise ValueError("nothing was held out")
    return HeldOutErrors(
        median_relative_error=errors.median_relative,
        share_within_20_percent=errors.share_within_20_percent,
        median_abs_log_error=errors.median_abs_log,
        mean_abs_log_error=errors.mean_abs_log,
        pairwise_accuracy=comparable_pairs(held_out).accuracy(predicted_log_ttft),
    )
