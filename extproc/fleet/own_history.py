"""How many requests of this sidecar were in flight over the last moments, per backend.

A scraped gauge lags by 0.3 to 0.5 s in both directions, so it has to be compared with what was in flight
*around* the scrape: the largest number, to tell strangers' requests from ended ones that are still
counted; the smallest, to tell that requests are stuck before the engine. Kept as the extremes of 100 ms
buckets in a ring, so a change costs O(1) and memory is fixed.
"""

BUCKET_S = 0.1
WINDOW_S = 1.0
_BUCKETS = round(WINDOW_S / BUCKET_S) + 1


class _Ring:
    """One backend's buckets; one that was never written repeats the last number."""

    __slots__ = ("largest", "last", "smallest", "tick")

    def __init__(self) -> None:
        self.largest = [0] * _BUCKETS
        self.smallest = [0] * _BUCKETS
        self.last = 0
        self.tick = 0

    def advance(self, tick: int) -> int:
        """Open the buckets up to `tick`, each starts with what was in flight then; the newest one's index."""
        if tick > self.tick:
            for missed in range(min(tick - self.tick, _BUCKETS)):
                bucket = (tick - missed) % _BUCKETS
                self.largest[bucket] = self.smallest[bucket] = self.last
            self.tick = tick
        return self.tick % _BUCKETS


class OwnHistory:
    """A ring for each of `capacity` backends."""

    def __init__(self, capacity: int) -> None:
        self._rings = [_Ring() for _ in range(capacity)]

    def record(self, slot: int, own: int, now_s: float) -> None:
        """Note that `own` requests are in flight from now on."""
        ring = self._rings[slot]
        bucket = ring.advance(int(now_s / BUCKET_S))
        if own > ring.largest[bucket]:
            ring.largest[bucket] = own
        elif own < ring.smallest[bucket]:
            ring.smallest[bucket] = own
        ring.last = own

    def extremes(self, slot: int, now_s: float) -> tuple[int, int]:
        """The smallest and largest number in flight during the last WINDOW_S."""
        ring = self._rings[slot]
        ring.advance(int(now_s / BUCKET_S))
        return min(ring.smallest), max(ring.largest)

    def clear(self, slot: int) -> None:
        """Forget a backend that has left."""
        self._rings[slot] = _Ring()
