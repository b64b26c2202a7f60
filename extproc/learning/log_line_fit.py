"""Fits the line of log TTFT, level with the middle of the fleet, and what sets the backends apart.

It is what the trees correct, and by itself the plainest model that they have to beat.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import lsq_linear

from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES
from extproc.learning.log_line import MAX_LEVEL, MAX_WEIGHT, LogLine

_PENALTY = 0.1
"""Guessed: next to hundreds of samples it decides only what these leave open."""

_DOUBT = 10
"""An offset counts as if so many more samples had said zero: a backend with few samples gets a small one."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearFit:
    """The line of the middle backend, and `(n_backends,)` offsets in log seconds."""

    line: LogLine
    offsets: npt.NDArray[np.float64]


def fit_linear(train: Observations) -> LinearFit:
    """Weights and backends at once, by least squares within the bounds of a line, and with a small penalty.

    What varies with the backend alone (such as the running requests of servers that are always full) would
    otherwise get any weight at all, and what never varies as well.
    """
    log_ttft, logs = np.log(train.ttft_s), np.log1p(train.features)
    n_features, n_backends = len(FEATURES), len(train.fleet)
    seen = np.hstack([logs, np.eye(n_backends)[train.backend]])
    penalty = np.sqrt(_PENALTY) * np.eye(n_features, n_features + n_backends)
    bounds = (
        np.repeat([0.0, -np.inf], [n_features, n_backends]),
        np.repeat([MAX_WEIGHT, np.inf], [n_features, n_backends]),
    )
    target = np.append(log_ttft, np.zeros(n_features))
    weights = lsq_linear(np.vstack([seen, penalty]), target, bounds, method="bvls").x[:n_features]
    residual = log_ttft - logs @ weights
    level = float(np.clip(np.nanmedian(_medians(train, residual)), -MAX_LEVEL, MAX_LEVEL))
    return LinearFit(LogLine(tuple(weights.tolist()), level), backend_offsets(train, residual))


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
