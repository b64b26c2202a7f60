"""TTFTs in buckets that grow by half a percent: quantiles of any number of requests in fixed memory."""

import math

import numpy as np

LOWEST_S = 1e-4
HIGHEST_S = 1e5
GROWTH = 1.005
_LOG_GROWTH = math.log(GROWTH)
_BATCH = 1024
_BUCKETS = math.ceil(math.log(HIGHEST_S / LOWEST_S) / _LOG_GROWTH) + 1


class TtftHistogram:
    """Counts; a quantile is off by a quarter of a percent at most, between `LOWEST_S` and `HIGHEST_S`."""

    def __init__(self) -> None:
        self.count = 0
        self.sum_s = 0.0
        self._counts = np.zeros(_BUCKETS, np.int64)
        self._new_s: list[float] = []

    def add(self, ttft_s: float) -> None:
        """One more."""
        self.count += 1
        self.sum_s += ttft_s
        self._new_s.append(ttft_s)
        if len(self._new_s) == _BATCH:
            self._sort_in()

    def quantiles_s(self, *shares: float) -> tuple[float, ...] | None:
        """The smallest TTFTs that these shares of the requests do not exceed; None without requests."""
        if not self.count:
            return None
        self._sort_in()
        ranks = [max(1, math.ceil(share * self.count)) for share in shares]
        buckets = np.searchsorted(np.cumsum(self._counts), ranks).tolist()
        return tuple(LOWEST_S * GROWTH ** (bucket + 0.5) for bucket in buckets)

    def _sort_in(self) -> None:
        ttfts_s = np.clip(self._new_s, LOWEST_S, HIGHEST_S)
        buckets = np.floor(np.log(ttfts_s / LOWEST_S) / _LOG_GROWTH).astype(np.int64)
        self._counts += np.bincount(buckets, minlength=_BUCKETS)
        self._new_s.clear()
