"""A server's limit of running requests, learned from its queue: what runs while others have to wait.

They wait in the engine's queue, or before the engine, where only we know of them: more of our own were in
flight for a whole second than the server admits to. But that somebody waits at one moment shows no limit: a
request waits for the next iteration, and as long as the prompt before it fills the iterations. A limit it is
where the places of those who have left were taken, and others waited all the while.
"""

from math import inf

TURNOVER = 2
"""Tried on tuning scenarios: with 4 and more a queue is seen too late. One may leave during a long prompt."""


class RunningLimit:
    """One backend's `limit`, inf until it was seen; a configured one is only ever found too small."""

    __slots__ = ("_ended", "_most_running", "limit")

    def __init__(self, limit: float = inf) -> None:
        self.limit = limit
        self._ended: float | None = None  # since when others have waited, by the requests that had ended
        self._most_running = 0.0

    def seen(self, running: float, waiting: float, smallest_own: float, ended: float) -> None:
        """The gauges, the fewest of our own in flight in the last second, how many requests ever ended."""
        if self.limit < inf:
            self.limit = max(self.limit, running)
        elif running <= 0 or not (waiting > 0 or smallest_own > running + waiting):
            self._ended = None
        elif self._ended is None:
            self._ended, self._most_running = ended, running
        else:
            self._most_running = max(self._most_running, running)
            if ended - self._ended >= TURNOVER:
                self.limit = self._most_running
