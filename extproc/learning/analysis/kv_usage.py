"""TTFT at a nearly full KV cache, against TTFT at a similar load with room in it.

Usage grows with load, so the plain comparison would only show the load again. Compared are medians within
small ranges of load on the same backend; the interval is that of a bootstrap within these ranges.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extproc.learning.analysis.broken_stick import load_bins
from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES

HIGH_USAGE = 0.9
MIN_SAMPLES = 30
_MIN_PER_SIDE = 5
_RESAMPLES = 200

_LOAD, _KV = FEATURES.index("load"), FEATURES.index("kv_cache_fraction")

Sides = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class KvUsage:
    """How many times longer TTFT is from a KV usage of 0.9 on, with its 95 % interval.

    `high_count` requests met such a usage, `compared_count` of them at a load at which others did not.
    """

    high_count: int
    compared_count: int
    ttft_ratio: float | None = None
    low: float | None = None
    high: float | None = None
    unstated: str | None = None


def kv_usage_of(observations: Observations, rng: np.random.Generator) -> KvUsage:
    """Compare over all backends."""
    is_high = observations.features[:, _KV] >= HIGH_USAGE
    high_count = int(is_high.sum())
    if high_count < MIN_SAMPLES:
        return KvUsage(high_count, 0, unstated=f"{high_count} requests met a KV usage of 0.9 or more")
    pairs = _pairs_at_similar_load(observations, is_high)
    compared = sum(len(full) for full, _ in pairs)
    if compared < MIN_SAMPLES:
        reason = "at the same load there was hardly ever a lower KV usage"
        return KvUsage(high_count, compared, unstated=reason)
    resampled = [
        _log_ratio([(rng.choice(full, len(full)), rng.choice(room, len(room))) for full, room in pairs])
        for _ in range(_RESAMPLES)
    ]
    ratio = float(np.exp(_log_ratio(pairs)))
    low, high = np.exp(np.quantile(resampled, [0.025, 0.975])).tolist()
    return KvUsage(high_count, compared, ratio, low, high)


def _pairs_at_similar_load(observations: Observations, is_high: npt.NDArray[np.bool_]) -> list[Sides]:
    """Return log TTFT at high usage and below it, for each range of load and backend with enough of both."""
    bins = load_bins(observations.features[:, _LOAD])
    strata = observations.backend * (bins.max() + 1) + bins
    order = np.argsort(strata, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(strata[order])) + 1)
    logs = np.log(observations.ttft_s)
    pairs = [(logs[group[is_high[group]]], logs[group[~is_high[group]]]) for group in groups]
    return [pair for pair in pairs if min(map(len, pair)) >= _MIN_PER_SIDE]


def _log_ratio(pairs: list[Sides]) -> float:
    differences = [np.median(full) - np.median(room) for full, room in pairs]
    return float(np.average(differences, weights=[len(full) for full, _ in pairs]))
