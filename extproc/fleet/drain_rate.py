"""How fast a backend finishes requests: the basis of the `Retry-After` of a refusal.

An exponentially decaying count of ends; time constant 10 s.
"""

import math

TIME_CONSTANT_S = 10.0
"""Guessed: long enough to count long answers, short enough to follow a change of load."""


class DrainRate:
    """Requests finished per second on one backend."""

    __slots__ = ("_count", "_counted_at_s")

    def __init__(self) -> None:
        self._count = 0.0
        self._counted_at_s = 0.0

    def finished(self, now_s: float) -> None:
        """Count a request that has ended."""
        self._count = self._decayed(now_s) + 1.0
        self._counted_at_s = now_s

    def per_second(self, now_s: float) -> float:
        """Return the rate now; 0 for a backend that has finished nothing for long."""
        return self._decayed(now_s) / TIME_CONSTANT_S

    def _decayed(self, now_s: float) -> float:
        elapsed_s = max(0.0, now_s - self._counted_at_s)
        return self._count * math.exp(-elapsed_s / TIME_CONSTANT_S)
