"""Two backends at the same moment: pairs of requests that tell whether the faster backend would be picked.

A router chooses between backends for one request, and only ever sees one of the two answers. Nearest to
seeing both are two requests of about the same length that met different backends at about the same time.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES

MIN_PAIRS = 50
"""Fewer say nothing: the standard error of their accuracy is up to 0.07."""

_WITHIN_S = 1.0
_SAME_LENGTH = 0.25

_FOLLOWING = 8
"""How many of the next samples one is compared with, so that a busy second does not outweigh all others."""

_INPUT = FEATURES.index("input_tokens")


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """`(n_pairs,)` indices of two samples each, and the sign of how much slower the second one truly was."""

    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    slower: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.first)

    def within(self, rows: npt.NDArray[np.bool_]) -> "Pairs":
        """The pairs of which both samples are among `rows`, a mask of all samples."""
        keep = rows[self.first] & rows[self.second]
        return Pairs(self.first[keep], self.second[keep], self.slower[keep])

    def accuracy(self, score: npt.NDArray[np.float64]) -> float | None:
        """How often the `(n,)` score had the order right, a tie being half right; None below `MIN_PAIRS`.

        Any score will do that is larger where a longer TTFT is expected.
        """
        if len(self) < MIN_PAIRS:
            return None
        agreement = self.slower * np.sign(score[self.second] - score[self.first])
        return float((agreement.mean() + 1) / 2)


def comparable_pairs(observed: Observations, tie_fraction: float) -> Pairs:
    """Return samples on different backends, at most 1 s apart, of similar input lengths.

    Their TTFTs differ by more than `tie_fraction`: the policy takes smaller differences for a tie.
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
            & (np.abs(log_ttft[second] - log_ttft[first]) > np.log1p(tie_fraction))
        )
        firsts.append(first[is_pair])
        seconds.append(second[is_pair])
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    return Pairs(first, second, np.sign(log_ttft[second] - log_ttft[first]))
