"""Observations with chosen features, for tests."""

import numpy as np
import numpy.typing as npt

from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES


def observed(
    ttft_s: npt.ArrayLike,
    backend: npt.ArrayLike = 0,
    fleet: tuple[str, ...] = ("vllm-1",),
    **features: npt.ArrayLike,
) -> Observations:
    """One observation a second; features that are not given are 0."""
    times_s = np.asarray(ttft_s, dtype=np.float64)
    count = len(times_s)
    rows = np.zeros((count, len(FEATURES)))
    for name, values in features.items():
        rows[:, FEATURES.index(name)] = values
    return Observations(
        1.7e9 + np.arange(count, dtype=np.float64),
        rows,
        times_s,
        np.broadcast_to(np.asarray(backend, np.intp), count).copy(),
        fleet,
    )
