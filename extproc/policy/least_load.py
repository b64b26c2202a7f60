"""Layer 3: the candidate with the smallest score; of those that nearly have it, the least loaded.

A score in seconds is an estimate, and small differences between equal machines are noise: without a tie the
one that happened to answer first would get nearly everything. Among equals, the one that was chosen
longest ago; where none was, ties are broken at random.

A score is a number for each candidate, smaller is better. The one in use is named by `least_load.score` in
the configuration; see docs/extending.md for how to add one.
"""

from collections.abc import Callable, Mapping
from math import inf

import numpy as np

from extproc.fleet.backend import Backend
from extproc.fleet.view import FleetView
from extproc.policy import expected_wait

Score = Callable[[FleetView, float], list[float]]
"""From the candidates and the prompt's tokens to a number each, in their order, in a list of its own."""

TIE_FRACTION = 0.1
MIN_TIE = 0.005
MAX_TIE = 0.05
"""Guessed: a difference within this share of the time that the server takes in any case is noise, or would
hardly be noticed; in seconds, and within bounds. A longer wait is no noise, so the share is not of the score.
"""


def requests_in_flight(view: FleetView, prompt_tokens: float) -> list[float]:
    """Return the load of each candidate: plain least load, whatever the requests are."""
    return view.loads.copy()


SCORES: Mapping[str, Score] = {
    "expected_wait": expected_wait.scores,
    "requests_in_flight": requests_in_flight,
}


def least_loaded(view: FleetView, found: list[float], rng: np.random.Generator) -> int:
    """Return the number of the candidate with the smallest score, or nearly so; there must be one.

    `found` has the score of each; it is changed while this looks, and is as it was afterwards.
    """
    least = min(found)
    first = found.index(least)
    margin = TIE_FRACTION * view.backends[first].pace.base_s
    bound = least + (MIN_TIE if margin < MIN_TIE else MAX_TIE if margin > MAX_TIE else margin)
    found[first] = inf
    is_alone = min(found) > bound
    found[first] = least
    if is_alone:
        return first
    return _lightest(view, found, bound, first, rng)


def _lightest(view: FleetView, found: list[float], bound: float, first: int, rng: np.random.Generator) -> int:
    """Return the least loaded of those that are nearly the `first`: whose score is at most the bound.

    Among equals, that is the one that was chosen longest ago. A difference that the prefix cache makes is no
    noise: none of them has fewer expected cached tokens.
    """
    fresh_from_s, cached = view.fresh_from_s, view.near_tokens.get
    most = cached(view.backends[first], 0.0)
    tied: list[Backend] = []
    lightest, longest_ago_s, alike = inf, inf, 0
    for backend, each in zip(view.backends, found, strict=True):
        if each > bound:
            continue
        load = backend.load if backend.scraped_at_s >= fresh_from_s else backend.own
        if load > lightest or (most > 0.0 and cached(backend, 0.0) < most):
            continue
        chosen_at_s = backend.silence.chosen_at_s
        if load < lightest:
            lightest, longest_ago_s, alike, tied = load, chosen_at_s, 1, [backend]
            continue
        alike += 1
        if chosen_at_s < longest_ago_s:
            longest_ago_s, tied = chosen_at_s, [backend]
        elif chosen_at_s == longest_ago_s:
            tied.append(backend)
    return view.backends.index(tied[0] if alike == 1 else tied[int(rng.random() * len(tied))])
