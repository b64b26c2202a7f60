"""Rivals that know nothing but their own requests."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from extproc.lab.rivals.policy import Candidates, Draws, Policy
from extproc.lab.traffic.arrivals import Arrival


class RoundRobin(Policy):
    """One after the other; routers start at different backends, as Envoy's and nginx's workers do."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._next = int(rng.integers(1 << 30))

    def choose(self, request_id: int, request: Arrival, candidates: Candidates, now_s: float) -> int | None:
        """Return the next one."""
        self._next += 1
        return candidates[self._next % len(candidates)].backend


class Random(Policy):
    """Any: Envoy's RANDOM, and what a Kubernetes service does by itself."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._draws = Draws(rng)

    def choose(self, request_id: int, request: Arrival, candidates: Candidates, now_s: float) -> int | None:
        """Return any one."""
        return candidates[self._draws.below(len(candidates))].backend


class LeastRequest(Policy):
    """Envoy's LEAST_REQUEST at its defaults: the less busy of two random hosts, which may be the same one.

    Power of two choices (Mitzenmacher, 2001); a request is active until its response has ended. Sources:
    Envoy's documentation of load balancers, "weighted least request", all weights equal, and
    `least_request_lb.cc` (N_CHOICES): draws with replacement, and of two equally busy the first is kept.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._draws = Draws(rng)

    def choose(self, request_id: int, request: Arrival, candidates: Candidates, now_s: float) -> int | None:
        """Return the less busy one of two; of two equally busy ones the first that was drawn."""
        first = candidates[self._draws.below(len(candidates))]
        second = candidates[self._draws.below(len(candidates))]
        return second.backend if second.in_flight < first.in_flight else first.backend


class BestScore(Policy):
    """The backend with the largest score, of several one at random. Only `scores` has to be given."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._draws = Draws(rng)

    @abstractmethod
    def scores(self, candidates: Candidates, request: Arrival) -> Sequence[float]:
        """Return a score for each candidate."""

    def choose(self, request_id: int, request: Arrival, candidates: Candidates, now_s: float) -> int:
        """Return one of the best."""
        scores = self.scores(candidates, request)
        best = max(scores)
        tied = [each.backend for each, score in zip(candidates, scores, strict=True) if score == best]
        return tied[0] if len(tied) == 1 else tied[self._draws.below(len(tied))]


class LeastInFlight(BestScore):
    """The fewest own requests in flight of all backends: nginx's least_conn, HAProxy's leastconn."""

    def scores(self, candidates: Candidates, request: Arrival) -> Sequence[float]:
        """Return fewer the more requests are in flight."""
        return [-candidate.in_flight for candidate in candidates]
