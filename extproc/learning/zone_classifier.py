"""The zone of a backend from the same features that the model is asked with: the second route to it.

The first is a boundary on the load that each backend learns from its outcomes (see `fleet.zone`). It knows
nothing of the request; where the input length decides whether a request waits, a classifier can know better.
The levels are ordered, so it is one yes-or-no question per cut, "at least medium?" and "at least saturated?"
(Frank and Hall, "A simple approach to ordinal classification", 2001), each answered by a logistic regression.
Serving asks about every candidate of every request, so an answer has to be a product of two small matrices.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from extproc.learning.features import FEATURES
from extproc.learning.zone_bounds import ZoneBounds

LOW, MEDIUM, SATURATED = 0, 1, 2
"""The levels, which are ordered as the zones are."""

MAX_WEIGHT = 1e4
"""No weight or bias may be larger; fitted ones are some tens."""

_Weight = Annotated[float, Meta(ge=-MAX_WEIGHT, le=MAX_WEIGHT)]
_CutWeights = Annotated[tuple[_Weight, ...], Meta(min_length=len(FEATURES), max_length=len(FEATURES))]


@dataclass(frozen=True, slots=True)
class ZoneClassifier:
    """The two cuts: a level is reached where weights · log(1 + features) + bias is at least 0.

    With bounds as part of the types, decoding a file checks them.
    """

    weights: tuple[_CutWeights, _CutWeights]
    bias: tuple[_Weight, _Weight]

    def levels(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
        """`(n, n_features)` to `(n,)`: LOW, MEDIUM or SATURATED; NaN never reaches a level."""
        score = np.log1p(rows) @ np.array(self.weights).T + np.array(self.bias)
        reached = (score >= 0.0).view(np.int8)
        levels: npt.NDArray[np.int8] = np.maximum(reached[:, 0], reached[:, 1] * SATURATED)
        return levels


def observed_levels(ttft_s: npt.NDArray[np.float64], zone: ZoneBounds) -> npt.NDArray[np.int8]:
    """The level that each `(n,)` TTFT turned out to be."""
    return ((ttft_s >= zone.low_s).astype(np.int8) + (ttft_s >= zone.saturated_s)).astype(np.int8)
