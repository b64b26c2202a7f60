"""The estimates that a decision compares, for each candidate. They serve its trace, never the decision."""

from collections.abc import Sequence
from heapq import nsmallest

import msgspec

from extproc.fleet.view import FleetView
from extproc.policy import guard
from extproc.policy.expected_wait import estimates


class CandidateEstimate(msgspec.Struct, frozen=True):
    """A candidate, its requests in flight, and what the request has to expect there.

    `is_open` where the guard lets requests in.
    """

    backend: str
    load: float
    wait_s: float
    ttft_s: float
    is_open: bool


def candidate_estimates(view: FleetView, prompt_tokens: float, most: int) -> Sequence[CandidateEstimate]:
    """Return the candidates with the smallest scores, that one first, at most this many."""
    terms = estimates(view, prompt_tokens, view.cached_tokens)
    fit = set(guard.fit(view, prompt_tokens)[0].backends)
    found = []
    for number in nsmallest(most, range(len(view)), key=lambda number: terms[number].score_s):
        backend, load, known = view.backends[number], view.loads[number], terms[number]
        found.append(CandidateEstimate(backend.name, load, known.wait_s, known.ttft_s, backend in fit))
    return found
