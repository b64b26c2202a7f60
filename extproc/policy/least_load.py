"""Layer 3: the candidate with the smallest score; of those that nearly have it, the least loaded.

A score in seconds is an estimate, and small differences between equal machines are noise: without a tie the
one that happened to answer first would get nearly everything. Ties of load are broken at random.

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

TIE_FRACTION = 0.1
MIN_TIE = 0.005
MAX_TIE = 0.05
"""Guessed, in the unit of the score: differences that are noise, and that would hardly be noticed."""


def requests_in_flight(view: FleetView, prompt_tokens: float) -> list[float]:
    """Return the load of each candidate: plain least load, whatever the requests are."""
    return view.loads


SCORES: Mapping[str, Score] = {
    "expected_wait": expected_wait.scores,
    "requests_in_flight": requests_in_flight,
}


def least_loaded(view: FleetView, prompt_tokens: float, score: Score, rng: np.random.Generator) -> Backend:
    """Return the candidate with the smallest score, or nearly so; there must be one.

    A difference that the prefix cache makes is no noise: a near tie never costs expected cached tokens.
    """
    found = score(view, prompt_tokens)
    least = min(found)
    bound = least + min(max(TIE_FRACTION * least, MIN_TIE), MAX_TIE)
    near = [number for number, each in enumerate(found) if each <= bound]
    if len(near) > 1 and (cached := view.cached_tokens):
        most = cached.get(view.backends[found.index(least)], 0.0)
        near = [number for number in near if cached.get(view.backends[number], 0.0) >= most]
    if len(near) == 1:
        return view.backends[near[0]]
    lightest = min([view.loads[number] for number in near])
    tied = [number for number in near if view.loads[number] == lightest]
    return view.backends[tied[int(rng.random() * len(tied))] if len(tied) > 1 else tied[0]]
