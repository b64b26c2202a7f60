"""Fewer points than samples for the plots, without losing the rare ones."""

import numpy as np
import numpy.typing as npt

from extproc.learning.dataset import Observations
from extproc.learning.zone_bounds import ZoneBounds

MAX_POINTS = 5_000


def thinned(
    observations: Observations, bounds: ZoneBounds, rng: np.random.Generator, most: int = MAX_POINTS
) -> Observations:
    """At most so many observations: an equal share of each zone, as far as it has as many."""
    if len(observations) <= most:
        return observations
    members = [np.flatnonzero(mask) for mask in bounds.masks(observations.ttft_s).values()]
    kept: list[npt.NDArray[np.intp]] = []
    left = most
    for n_zones_left, rows in zip((3, 2, 1), sorted(members, key=len), strict=True):
        count = min(len(rows), left // n_zones_left)
        kept.append(rng.choice(rows, count, replace=False))
        left -= count
    return observations.take(np.sort(np.concatenate(kept)))
