"""Layer 3: the least loaded candidate, ties broken at random. In the low zone nothing beats it."""

import numpy as np

from extproc.fleet.load import Bools
from extproc.fleet.view import FleetView


def least_loaded(view: FleetView, allowed: Bools, rng: np.random.Generator) -> int:
    """The position of one of the least loaded among the `allowed`, of which there is at least one."""
    positions = allowed.nonzero()[0]
    loads = view.load[positions].tolist()
    lowest = min(loads)
    tied = [position for position, load in zip(positions.tolist(), loads, strict=True) if load == lowest]
    return tied[0] if len(tied) == 1 else tied[int(rng.random() * len(tied))]


def lightest(view: FleetView, allowed: Bools, count: int) -> Bools:
    """At most `count` of the `allowed`: the least loaded."""
    if np.count_nonzero(allowed) <= count:
        return allowed
    order = np.argsort(np.where(allowed, view.load, np.inf), kind="stable")[:count]
    chosen = np.zeros_like(allowed)
    chosen[order] = True
    return chosen
