"""Layer 3: the least loaded candidate, ties broken at random. In the low zone nothing beats it."""

import numpy as np

from extproc.fleet.fleet import FleetView
from extproc.fleet.load import Bools


def least_loaded(view: FleetView, allowed: Bools, rng: np.random.Generator) -> int:
    """The position of one of the least loaded among the `allowed`, of which there is at least one."""
    loads = np.where(allowed, view.load, np.inf)
    tied = np.flatnonzero(loads == loads.min())
    return int(tied[0] if tied.size == 1 else tied[rng.integers(tied.size)])


def lightest(view: FleetView, allowed: Bools, count: int) -> Bools:
    """At most `count` of the `allowed`: the least loaded."""
    if np.count_nonzero(allowed) <= count:
        return allowed
    order = np.argsort(np.where(allowed, view.load, np.inf), kind="stable")[:count]
    chosen = np.zeros_like(allowed)
    chosen[order] = True
    return chosen
