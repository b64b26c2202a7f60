"""Layer 3: the candidate with the smallest score, ties at random.

A score is a number for each candidate, smaller is better. The one in use is named by `least_load.score` in
the configuration; see docs/extending.md for how to add one.
"""

from collections.abc import Callable, Mapping

import numpy as np

from extproc.fleet.backend import Backend
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


def least_loaded(view: FleetView, prompt_tokens: float, score: Score, rng: np.random.Generator) -> Backend:
    """Return the candidate with the smallest score; there must be one."""
    found = score(view, prompt_tokens)
    least = min(found)
    if found.count(least) == 1:
        return view.backends[found.index(least)]
    tied = [backend for backend, each in zip(view.backends, found, strict=True) if each == least]
    return tied[int(rng.random() * len(tied))]
