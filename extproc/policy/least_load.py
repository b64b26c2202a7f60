"""Layer 3: the candidate with the least load, put in the time that a request has to expect there.

Of backends of which nothing is known but their load it is the least loaded; ties are broken at random.
"""

from collections.abc import Sequence
from heapq import nsmallest

import numpy as np

from extproc.fleet.view import FleetView


def soonest(view: FleetView, allowed: Sequence[int], prompt_tokens: float, rng: np.random.Generator) -> int:
    """The position of one of the `allowed`, of which there is at least one, with the least to expect."""
    expected_s = view.expected_s(allowed, prompt_tokens)
    least_s = min(expected_s)
    if expected_s.count(least_s) == 1:
        return allowed[expected_s.index(least_s)]
    tied = [position for position, each_s in zip(allowed, expected_s, strict=True) if each_s == least_s]
    return tied[int(rng.random() * len(tied))]


def lightest(view: FleetView, allowed: Sequence[int], count: int) -> Sequence[int]:
    """At most `count` of the `allowed`: the least loaded."""
    return allowed if len(allowed) <= count else nsmallest(count, allowed, key=view.load.__getitem__)
