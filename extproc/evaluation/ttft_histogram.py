"""TTFTs in buckets that grow by half a percent: quantiles of any number of requests in fixed memory."""

import math
from array import array
from bisect import bisect_left
from itertools import accumulate

LOWEST_S = 1e-4
HIGHEST_S = 1e5
GROWTH = 1.005
_LOG_GROWTH = math.log(GROWTH)
_BUCKETS = math.ceil(math.log(HIGHEST_S / LOWEST_S) / _LOG_GROWTH) + 1


class TtftHistogram:
    """Counts; a quantile is off by a quarter of a percent at most, between `LOWEST_S` and `HIGHEST_S`."""

    def __init__(self) -> None:
        self.count = 0
        self.sum_s = 0.0
        self._counts = array("q", bytes(8 * _BUCKETS))

    def add(self, ttft_s: float) -> None:
        """One more."""
        self.count += 1
        self.sum_s += ttft_s
        bucket = int(math.log(ttft_s / LOWEST_S) / _LOG_GROWTH) if ttft_s > LOWEST_S else 0
        self._counts[bucket if bucket < _BUCKETS else _BUCKETS - 1] += 1

    def quantiles_s(self, *shares: float) -> tuple[float, ...] | None:
        """The smallest TTFTs that these shares of the requests do not exceed; None without requests."""
        if not self.count:
            return None
        cumulated = list(accumulate(self._counts))
        buckets = (bisect_left(cumulated, max(1, math.ceil(share * self.count))) for share in shares)
        return tuple(LOWEST_S * GROWTH ** (bucket + 0.5) for bucket in buckets)
