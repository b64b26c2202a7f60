"""Recorded samples before they are cleaned: what no cleaning can see, because it needs the time.

A sample from the future would stay the newest for ever, and so be what every model is judged by.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from extproc.learning.dataset import TRAINING_COLUMNS
from extproc.learning.drift import DRIFT_COLUMNS

COLUMNS = tuple(dict.fromkeys((*TRAINING_COLUMNS, *DRIFT_COLUMNS)))
"""The fields of `Sample` that the trainer reads."""

_CLOCK_SKEW_S = 60.0
"""Guessed: sidecars on other machines write with their own clocks."""


def plausible(columns: Mapping[str, npt.NDArray[Any]], now_s: float) -> dict[str, npt.NDArray[Any]]:
    """The same columns, without times after `now_s` (a unix time)."""
    at_s = np.asarray(columns["at_s"], dtype=np.float64)
    return {**columns, "at_s": np.where(at_s > now_s + _CLOCK_SKEW_S, np.nan, at_s)}
