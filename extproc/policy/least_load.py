"""Layer 3: the least loaded candidate, ties broken at random. In the low zone nothing beats it."""

from collections.abc import Sequence
from heapq import nsmallest

import numpy as np

from extproc.fleet.view import FleetView


def least_loaded(view: FleetView, allowed: Sequence[int], rng: np.random.Generator) -> int:
    """The position of one of the least loaded among the `allowed`, of which there is at least one."""
    loads = view.load
    lowest = min([loads[position] for position in allowed])
    tied = [position for position in allowed if loads[position] == lowest]
    return tied[0] if len(tied) == 1 else tied[int(rng.random() * len(tied))]


def lightest(view: FleetView, allowed: Sequence[int], count: int) -> Sequence[int]:
    """At most `count` of the `allowed`: the least loaded."""
    return allowed if len(allowed) <= count else nsmallest(count, allowed, key=view.load.__getitem__)
