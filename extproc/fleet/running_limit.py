"""A server's limit of running requests, learned from its queue: what runs while others have to wait.

They wait in the engine's queue, or before the engine, where only we know of them: more of our own were in
flight for a whole second than the server admits to. But a request that waits at one moment shows no limit: a
request waits for the next iteration, and as long as the prompt before it fills the iterations. So what runs
then is the limit until no request waits any more. It stays the limit where freed places were taken again,
and others waited all the while: a backend with a limit that is too low gets no traffic to show more. Before
an engine that computes prompts without a pause some wait at any time, and within a few requests what runs
hardly changes. So of many places a share has to be freed, while no more are seen to run.
"""

from math import inf

TURNOVER = 2
"""Tried on tuning scenarios: with 4 and more a queue is seen too late. One may leave during a long prompt."""

TURNOVER_SHARE = 0.125
"""Tried on recorded traffic: of the places. With two ends alone engines of 256 were taken to have 40 to 219.
"""


class RunningLimit:
    """One backend's `limit`, inf where none is seen; one that `is_sure`, as a configured one, only grows."""

    __slots__ = ("_ended", "is_sure", "limit")

    def __init__(self, limit: float = inf) -> None:
        self.limit = limit
        self.is_sure = limit < inf
        self._ended: float | None = None  # since when others have waited, by the requests that had ended

    def seen(
        self, running: float, waiting: float, smallest_own: float, ended: float, is_prefilling: bool = False
    ) -> None:
        """Take gauges, the fewest own requests in flight in the last second, and the ended requests."""
        if self.is_sure:
            self.limit = max(self.limit, running)
        elif is_prefilling or running <= 0 or not (waiting > 0 or smallest_own > running + waiting):
            self._ended, self.limit = None, inf
        elif self._ended is None or running > self.limit:
            self._ended, self.limit = ended, running
        else:
            self.is_sure = ended - self._ended >= max(TURNOVER, TURNOVER_SHARE * self.limit)
