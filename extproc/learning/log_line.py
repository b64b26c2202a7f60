"""The line under the trees: log TTFT as a weighted sum of the logarithms of the features.

A queue makes TTFT a power of the load, which is a line here, and what trees can only follow in steps. So a
model is a line and the trees that correct it; the line also goes on where trees have seen nothing.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from extproc.learning.features import FEATURES, LARGEST

MAX_WEIGHT = 5.0
"""No TTFT grows with more than the fifth power of anything; fitted weights are about 1."""
MAX_LEVEL = 50.0

_LARGEST = np.array(LARGEST)
_Weight = Annotated[float, Meta(ge=0, le=MAX_WEIGHT)]


@dataclass(frozen=True, slots=True)
class LogLine:
    """`level` + `weights` · log(1 + features), in log seconds.

    No weight is negative: more of anything never shortens a wait, though trees may find that it does.
    """

    weights: Annotated[tuple[_Weight, ...], Meta(min_length=len(FEATURES), max_length=len(FEATURES))]
    level: Annotated[float, Meta(ge=-MAX_LEVEL, le=MAX_LEVEL)]

    def predict(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """`(n, n_features)` to `(n,)`; finite for any row, NaN counts as 0."""
        return on_line(rows, np.array(self.weights), self.level)


def on_line(
    rows: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], level: float
) -> npt.NDArray[np.float64]:
    """What the line with these `(n_features,)` weights says; a decision asks with an array made once."""
    possible = np.fmin(np.fmax(rows, 0.0), _LARGEST)
    log_ttft: npt.NDArray[np.float64] = np.add.reduce(np.log1p(possible) * weights, axis=1) + level
    return log_ttft
