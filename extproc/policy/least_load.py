"""Layer 3: the candidate with the smallest score, ties at random.

A score is a number for each candidate, smaller is better. The one in use is named by `least_load.score` in
the configuration; see docs/extending.md for how to add one.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from extproc.fleet.view import FleetView
from extproc.policy import expected_wait

Score = Callable[[FleetView, float], list[float]]
"""From the candidates and the prompt's tokens to a number each, in the order of the candidates."""


def requests_in_flight(view: FleetView, prompt_tokens: float) -> list[float]:
    """Return the load of each candidate: plain least load, whatever the requests are."""
    return view.loads


SCORES: Mapping[str, Score] = {
    "expected_wait": expected_wait.scores,
    "requests_in_flight": requests_in_flight,
}


def least_of(found: Sequence[float], rng: np.random.Generator) -> int:
    """Return the number of the smallest score, of equal ones any; there must be one."""
    least = min(found)
    if found.count(least) == 1:
        return found.index(least)
    tied = [number for number, each in enumerate(found) if each == least]
    return tied[int(rng.random() * len(tied))]
