"""How many requests of this sidecar were in flight over the last moments, per backend.

A scraped gauge lags by 0.3 to 0.5 s in both directions, so it has to be compared with what was in flight
*around* the scrape: the largest number, to tell strangers' requests from ended ones that are still
counted; the smallest, to tell that requests are stuck before the engine. Kept as the extremes of 100 ms
buckets in a ring, so a change costs O(1) and memory is fixed.
"""

import numpy as np

BUCKET_S = 0.1
WINDOW_S = 1.0
_BUCKETS = round(WINDOW_S / BUCKET_S) + 1


class OwnHistory:
    """Rings of (n_backends, buckets) extremes; a bucket that was never written repeats the last value."""

    def __init__(self, capacity: int) -> None:
        self._largest = np.zeros((capacity, _BUCKETS), np.int64)
        self._smallest = np.zeros((capacity, _BUCKETS), np.int64)
        self._last = np.zeros(capacity, np.int64)
        self._tick = np.zeros(capacity, np.int64)

    def record(self, slot: int, own: int, now_s: float) -> None:
        """Note that `own` requests are in flight from now on."""
        self._advance(slot, int(now_s / BUCKET_S))
        bucket = self._tick[slot] % _BUCKETS
        self._largest[slot, bucket] = max(self._largest[slot, bucket], own)
        self._smallest[slot, bucket] = min(self._smallest[slot, bucket], own)
        self._last[slot] = own

    def extremes(self, slot: int, now_s: float) -> tuple[int, int]:
        """The smallest and largest number in flight during the last WINDOW_S."""
        self._advance(slot, int(now_s / BUCKET_S))
        return int(self._smallest[slot].min()), int(self._largest[slot].max())

    def clear(self, slot: int) -> None:
        """Forget a backend that has left."""
        self._largest[slot] = self._smallest[slot] = self._last[slot] = 0

    def _advance(self, slot: int, tick: int) -> None:
        """Open the buckets up to `tick`; each starts with what was in flight when it began."""
        missed = min(tick - int(self._tick[slot]), _BUCKETS)
        for step in range(missed):
            bucket = (tick - step) % _BUCKETS
            self._largest[slot, bucket] = self._smallest[slot, bucket] = self._last[slot]
        if missed > 0:
            self._tick[slot] = tick
