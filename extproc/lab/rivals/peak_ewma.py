"""Peak-EWMA, the balancer of Finagle and linkerd: response time times requests pending, of two choices."""

import math

import numpy as np

from extproc.lab.rivals.policy import Candidates, Draws, Ended, Policy
from extproc.lab.traffic.arrivals import Arrival

DEFAULT_RTT_S = 0.03
DECAY_S = 10.0
"""Both borrowed: linkerd2-proxy's settings."""


class PeakEwma(Policy):
    """As in linkerd2-proxy, by tower's `load::PeakEwma`, which was made after Finagle's (`PeakEwma.scala`).

    A response time above the average replaces it, one below is averaged in, with weights that decay by time;
    read without news, the average decays towards 0. A request is pending, and its time runs, until the first
    data of its response: of a stream that is its TTFT. Two different backends are drawn, and the one with the
    smaller `average * (pending + 1)` is taken.
    """

    def __init__(self, backends: int, rng: np.random.Generator) -> None:
        self._draws = Draws(rng)
        self._rtt_s = [DEFAULT_RTT_S] * backends
        self._updated_s = [0.0] * backends
        self._pending = [0] * backends

    def choose(self, request_id: int, request: Arrival, candidates: Candidates, now_s: float) -> int | None:
        """Return the cheaper one of two."""
        count = len(candidates)
        index = self._draws.below(count)
        chosen = candidates[index]
        if count > 1:
            other = candidates[(index + 1 + self._draws.below(count - 1)) % count]
            if self._cost(other.backend, now_s) < self._cost(chosen.backend, now_s):
                chosen = other
        self._pending[chosen.backend] += 1
        return chosen.backend

    def first_token(self, request_id: int, backend: int, ttft_s: float, now_s: float) -> None:
        """Note its response time."""
        self._pending[backend] -= 1
        self._update(backend, ttft_s, now_s)

    def ended(self, request: Ended, now_s: float) -> None:
        """Count a request that failed before it began as an answer at the time of the failure."""
        if request.ttft_s is None:
            self.first_token(request.request_id, request.backend, request.duration_s, now_s)

    def _cost(self, backend: int, now_s: float) -> float:
        self._update(backend, 0.0, now_s)
        return self._rtt_s[backend] * (self._pending[backend] + 1)

    def _update(self, backend: int, rtt_s: float, now_s: float) -> None:
        known_s = self._rtt_s[backend]
        if rtt_s > known_s:
            self._rtt_s[backend] = rtt_s
        else:
            weight = math.exp(-(now_s - self._updated_s[backend]) / DECAY_S)
            self._rtt_s[backend] = known_s * weight + rtt_s * (1 - weight)
        self._updated_s[backend] = now_s
