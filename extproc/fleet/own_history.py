"""Own requests on a backend over the last moments: how many were in flight, and how fast they ended.

A scraped gauge lags by 0.3 to 0.5 s in both directions, so it has to be compared with what was in flight
*around* the scrape: the largest number, to tell foreign requests from ended ones that are still counted; the
smallest, to tell that requests are stuck before the engine. Kept as the extremes of 100 ms buckets in a ring,
so a change costs O(1) and memory is fixed. The last changes are kept as they were, for the age of the gauges
(`fleet.gauge_lag`).
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, field

BUCKET_S = 0.1
WINDOW_S = 1.0
_BUCKETS = round(WINDOW_S / BUCKET_S) + 1

_MOST_CHANGES = 1024
"""Guessed: the changes of a second on a backend that gets five hundred requests."""

TIME_CONSTANT_S = 10.0
"""Guessed: long enough to count long answers, short enough to follow a change of load."""


@dataclass(slots=True, eq=False)
class OwnHistory:
    """The buckets of one backend; one that was never written repeats the last number."""

    _largest: list[int] = field(default_factory=lambda: [0] * _BUCKETS)
    _smallest: list[int] = field(default_factory=lambda: [0] * _BUCKETS)
    _tick: int = 0
    _times_s: list[float] = field(default_factory=lambda: [-math.inf])
    _numbers: list[int] = field(default_factory=lambda: [0])

    def record(self, own: int, now_s: float) -> None:
        """Note that `own` requests are in flight from now on."""
        bucket = self._advance(int(now_s / BUCKET_S))
        if own > self._largest[bucket]:
            self._largest[bucket] = own
        elif own < self._smallest[bucket]:
            self._smallest[bucket] = own
        self._times_s.append(now_s)
        self._numbers.append(own)
        if len(self._numbers) > _MOST_CHANGES:
            del self._times_s[: _MOST_CHANGES // 2], self._numbers[: _MOST_CHANGES // 2]

    def extremes(self, now_s: float) -> tuple[int, int]:
        """Return the smallest and largest number in flight during the last WINDOW_S."""
        self._advance(int(now_s / BUCKET_S))
        return min(self._smallest), max(self._largest)

    @property
    def changed_at_s(self) -> float:
        """The time of the last change."""
        return self._times_s[-1]

    def own_at(self, moment_s: float) -> int:
        """Return how many were in flight then; further back than is remembered, the earliest known number."""
        return self._numbers[max(0, bisect_right(self._times_s, moment_s) - 1)]

    def _advance(self, tick: int) -> int:
        """Open the buckets up to `tick` with the number in flight then; return the newest one's index."""
        if tick > self._tick:
            for missed in range(min(tick - self._tick, _BUCKETS)):
                bucket = (tick - missed) % _BUCKETS
                self._largest[bucket] = self._smallest[bucket] = self._numbers[-1]
            self._tick = tick
        return self._tick % _BUCKETS


ANSWER_S = 10.0
"""Guessed: how long an answer takes, as long as a backend that was idle has not been busy for long."""


@dataclass(slots=True, eq=False)
class DrainRate:
    """Requests finished per second on one backend, by an exponentially decaying count of ends.

    It is the basis of the `Retry-After` of a refusal. For a backend that was idle until a moment ago the
    count says little: its rate is at least as large as what is in flight lets expect, for the first seconds.
    """

    _count: float = 0.0
    _counted_at_s: float = 0.0
    _busy_since_s: float = -math.inf

    def became_busy(self, now_s: float) -> None:
        """Note that the first request was placed on an idle backend."""
        self._busy_since_s = now_s

    def finished(self, now_s: float) -> None:
        """Count a request that has ended."""
        self._count = self._decayed(now_s) + 1.0
        self._counted_at_s = now_s

    def per_second(self, own: int, now_s: float) -> float:
        """Return the rate now, with `own` in flight; 0 for a backend that has finished nothing for long."""
        unknown_share = math.exp(-max(0.0, now_s - self._busy_since_s) / TIME_CONSTANT_S)
        return max(self._decayed(now_s) / TIME_CONSTANT_S, unknown_share * own / ANSWER_S)

    def _decayed(self, now_s: float) -> float:
        elapsed_s = now_s - self._counted_at_s
        return self._count * math.exp(-elapsed_s / TIME_CONSTANT_S) if elapsed_s > 0.0 else self._count
