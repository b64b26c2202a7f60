"""Rivals that know nothing but their own requests."""

from collections.abc import Sequence

import numpy as np

from extproc.evaluation.policies.policy import Candidate, Policy
from extproc.simulation.arrivals import Arrival


class RoundRobin(Policy):
    """One after the other; routers start at different backends, as Envoy's and nginx's workers do."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._next = int(rng.integers(1 << 30))

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        """The next one."""
        self._next += 1
        return self._next % len(candidates)


class Random(Policy):
    """Any: Envoy's RANDOM, and what a Kubernetes service does by itself."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        """Any one."""
        return int(self._rng.random() * len(candidates))


class LeastRequest(Policy):
    """Envoy's LEAST_REQUEST at its defaults: the less busy of two random hosts, which may be the same one.

    Power of two choices (Mitzenmacher, 2001); a request is active until its response has ended. Source:
    Envoy's documentation of load balancers, "weighted least request", all weights equal.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        """The less busy one of two; of two equally busy ones the first that was drawn."""
        first = int(self._rng.random() * len(candidates))
        second = int(self._rng.random() * len(candidates))
        return second if candidates[second].in_flight < candidates[first].in_flight else first


class LeastInFlight(Policy):
    """The fewest own requests in flight of all backends, ties at random: nginx's least_conn, HAProxy's
    leastconn.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        """One of the least busy."""
        return any_best([-candidate.in_flight for candidate in candidates], self._rng)


def any_best(scores: Sequence[float], rng: np.random.Generator) -> int:
    """The index of the largest score, of several one at random."""
    best = max(scores)
    tied = [index for index, score in enumerate(scores) if score == best]
    return tied[0] if len(tied) == 1 else tied[int(rng.random() * len(tied))]
