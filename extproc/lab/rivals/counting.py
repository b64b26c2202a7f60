"""Rivals that know nothing but their own requests."""

from collections.abc import Sequence

import numpy as np

from extproc.lab.evaluation.draws import Draws
from extproc.lab.rivals.policy import Candidate, Policy
from extproc.lab.traffic.arrivals import Arrival


class RoundRobin(Policy):
    """One after the other; routers start at different backends, as Envoy's and nginx's workers do."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._next = int(rng.integers(1 << 30))

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        """The next one."""
        self._next += 1
        return candidates[self._next % len(candidates)].backend


class Random(Policy):
    """Any: Envoy's RANDOM, and what a Kubernetes service does by itself."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._draws = Draws(rng)

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        """Any one."""
        return candidates[self._draws.below(len(candidates))].backend


class LeastRequest(Policy):
    """Envoy's LEAST_REQUEST at its defaults: the less busy of two random hosts, which may be the same one.

    Power of two choices (Mitzenmacher, 2001); a request is active until its response has ended. Sources:
    Envoy's documentation of load balancers, "weighted least request", all weights equal, and
    `least_request_lb.cc` (N_CHOICES): draws with replacement, and of two equally busy the first is kept.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._draws = Draws(rng)

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        """The less busy one of two; of two equally busy ones the first that was drawn."""
        first = candidates[self._draws.below(len(candidates))]
        second = candidates[self._draws.below(len(candidates))]
        return second.backend if second.in_flight < first.in_flight else first.backend


class LeastInFlight(Policy):
    """The fewest own requests in flight of all backends, ties at random: nginx's least_conn, HAProxy's
    leastconn.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._draws = Draws(rng)

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        """One of the least busy."""
        least = min([candidate.in_flight for candidate in candidates])
        tied = [candidate.backend for candidate in candidates if candidate.in_flight == least]
        return tied[0] if len(tied) == 1 else tied[self._draws.below(len(tied))]


def any_best(candidates: Sequence[Candidate], scores: Sequence[float], draws: Draws) -> int:
    """The backend with the largest score, of several one at random."""
    best = max(scores)
    tied = [candidate.backend for candidate, score in zip(candidates, scores, strict=True) if score == best]
    return tied[0] if len(tied) == 1 else tied[draws.below(len(tied))]
