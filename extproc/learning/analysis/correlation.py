"""Correlations of TTFT with each feature, zone by zone: Pearson's R and Spearman's rank correlation.

Pearson's is of plain TTFT, as in the study that this project comes from: within a zone TTFT spans one order
of magnitude, so no logarithm is needed, and a queue is linear in its length. Spearman's is the same for TTFT
and its logarithm. The intervals are Fisher's z (for ranks with the variance of Bonett and Wright,
Psychometrika 2000). They take samples for independent, which neighbours in time are not: read them as the
least uncertainty.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import stats

from extproc.fleet.zone import Zone
from extproc.learning.dataset import Observations
from extproc.learning.features import GAUGES, ZoneBounds

MIN_SAMPLES = 30
"""Guessed: with fewer, an R of 0.3 cannot be distinguished from 0."""

_Z = 1.959964
_NEARLY_ONE = 1 - 1e-12


class Unstated(StrEnum):
    """Why there is no correlation to state."""

    TOO_FEW = "too few samples"
    CONSTANT = "constant: says nothing"


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A correlation with its 95 % interval and the probability of one as large without any."""

    r: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Correlation:
    """TTFT and one feature in one zone: both coefficients, or the reason why there are none."""

    zone: Zone
    feature: str
    count: int
    pearson: Coefficient | None = None
    spearman: Coefficient | None = None
    unstated: Unstated | None = None


def correlations(observations: Observations, bounds: ZoneBounds) -> tuple[Correlation, ...]:
    """Correlate TTFT with the load, the gauges and the input length, in each zone."""
    return tuple(
        _correlation(zone, name, observations.features[mask, column], observations.ttft_s[mask])
        for zone, mask in bounds.masks(observations.ttft_s).items()
        for column, name in enumerate(GAUGES)
    )


def _correlation(
    zone: Zone, name: str, values: npt.NDArray[np.float64], ttft_s: npt.NDArray[np.float64]
) -> Correlation:
    count = len(values)
    if count < MIN_SAMPLES:
        return Correlation(zone, name, count, unstated=Unstated.TOO_FEW)
    if np.ptp(values) == 0 or np.ptp(ttft_s) == 0:
        return Correlation(zone, name, count, unstated=Unstated.CONSTANT)
    r, p_value = stats.pearsonr(values, ttft_s)
    rho, rank_p_value = stats.spearmanr(values, ttft_s)
    pearson = _coefficient(float(r), float(p_value), 1 / (count - 3))
    spearman = _coefficient(float(rho), float(rank_p_value), (1 + rho**2 / 2) / (count - 3))
    return Correlation(zone, name, count, pearson, spearman)


def _coefficient(r: float, p_value: float, variance: float) -> Coefficient:
    z = np.arctanh(np.clip(r, -_NEARLY_ONE, _NEARLY_ONE))
    half = _Z * np.sqrt(variance)
    return Coefficient(r, float(np.tanh(z - half)), float(np.tanh(z + half)), p_value)
