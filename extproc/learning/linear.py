"""Fits the line of log TTFT, level with the middle of the fleet, and what sets the backends apart.

It is what the trees correct, and by itself the plainest model that they have to beat.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import lsq_linear

from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES, MONOTONE
from extproc.learning.line import MAX_LEVEL, MAX_WEIGHT, Line

_DOUBT = 10
"""An offset counts as if so many more samples had said zero: a backend with few samples gets a small one."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearFit:
    """The line of the middle backend, and `(n_backends,)` offsets in log seconds."""

    line: Line
    offsets: npt.NDArray[np.float64]


def fit_linear(train: Observations) -> LinearFit:
    """Weights and backends at once, by least squares within the bounds of a line.

    A feature that never varies has no weight: it could not be told from the level.
    """
    log_ttft, logs = np.log(train.ttft_s), np.log1p(train.features)
    varies = np.flatnonzero(np.ptp(logs, axis=0) > 0)
    design = np.hstack([logs[:, varies], np.eye(len(train.fleet))[train.backend]])
    lowest = np.where(np.array(MONOTONE)[varies] > 0, 0.0, -MAX_WEIGHT)
    unbounded = np.full(len(train.fleet), np.inf)
    bounds = (np.append(lowest, -unbounded), np.append(np.full(len(varies), MAX_WEIGHT), unbounded))
    weights = np.zeros(len(FEATURES))
    weights[varies] = lsq_linear(design, log_ttft, bounds, method="bvls").x[: len(varies)]
    residual = log_ttft - logs @ weights
    level = float(np.clip(np.nanmedian(_medians(train, residual)), -MAX_LEVEL, MAX_LEVEL))
    return LinearFit(Line(tuple(weights.tolist()), level), backend_offsets(train, residual))


def backend_offsets(train: Observations, residual: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The median residual of each backend against that of the middle one; 0 for a backend without samples."""
    medians = _medians(train, residual)
    counts = np.bincount(train.backend, minlength=len(train.fleet))
    shrunk = (medians - np.nanmedian(medians)) * counts / (counts + _DOUBT)
    return np.where(counts > 0, shrunk, 0.0)


def _medians(train: Observations, residual: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The median residual of each backend; NaN for a backend without samples."""
    medians = np.full(len(train.fleet), np.nan)
    for backend in np.unique(train.backend):
        medians[backend] = np.median(residual[train.backend == backend])
    return medians
