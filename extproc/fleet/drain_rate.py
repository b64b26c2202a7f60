"""How fast a backend finishes requests: what a refused client is told to wait for.

An exponentially decaying count of ends, per backend; time constant 10 s.
"""

import math

TIME_CONSTANT_S = 10.0
"""Guessed: long enough to count long answers, short enough to follow a change of load."""


class DrainRates:
    """Requests finished per second, one entry per backend."""

    def __init__(self, capacity: int) -> None:
        self._count = [0.0] * capacity
        self._counted_at_s = [0.0] * capacity

    def finished(self, slot: int, now_s: float) -> None:
        """One request has ended."""
        self._count[slot] = self._decayed(slot, now_s) + 1.0
        self._counted_at_s[slot] = now_s

    def per_second(self, slot: int, now_s: float) -> float:
        """The rate now; 0 for a backend that has finished nothing for long."""
        return self._decayed(slot, now_s) / TIME_CONSTANT_S

    def clear(self, slot: int) -> None:
        """Forget a backend that has left."""
        self._count[slot] = 0.0

    def _decayed(self, slot: int, now_s: float) -> float:
        elapsed_s = max(0.0, now_s - self._counted_at_s[slot])
        return self._count[slot] * math.exp(-elapsed_s / TIME_CONSTANT_S)
