"""Clients that were refused with a time to come back, and are not due yet: a queue that waits elsewhere.

Whole seconds are promised, so a number for each second is all that is kept.
"""

from dataclasses import dataclass, field
from heapq import heappop, heappush


@dataclass(slots=True, eq=False)
class PromisedReturns:
    """Counts the clients that are away; which of them come back nothing tells."""

    _away: int = 0
    _by_second: dict[int, int] = field(default_factory=dict)
    _seconds: list[int] = field(default_factory=list)

    def away(self, now_s: float) -> int:
        """Return how many are not due yet."""
        while self._seconds and self._seconds[0] <= now_s:
            self._away -= self._by_second.pop(heappop(self._seconds))
        return self._away

    def promise(self, at_s: float) -> None:
        """Count a client that will come back then."""
        second = int(at_s)
        if second not in self._by_second:
            self._by_second[second] = 0
            heappush(self._seconds, second)
        self._by_second[second] += 1
        self._away += 1
