"""TTFTs in buckets that grow by half a percent: quantiles of any number of requests in fixed memory."""

import math

import numpy as np
import numpy.typing as npt

LOWEST_S = 1e-4
HIGHEST_S = 1e5
GROWTH = 1.005
_LOG_GROWTH = math.log(GROWTH)
_BUCKETS = math.ceil(math.log(HIGHEST_S / LOWEST_S) / _LOG_GROWTH) + 1


class FineHistogram:
    """Counts; a quantile is off by a quarter of a percent at most, between `LOWEST_S` and `HIGHEST_S`."""

    def __init__(self) -> None:
        self.count = 0
        self.sum_s = 0.0
        self._counts = np.zeros(_BUCKETS, np.int64)

    def add(self, ttfts_s: npt.NDArray[np.float64]) -> None:
        """Some more."""
        self.count += len(ttfts_s)
        # The sum of all is the same, to the last digit, whatever part of them comes at once.
        self.sum_s = float(np.cumsum(np.append(self.sum_s, ttfts_s))[-1])
        shares = np.clip(ttfts_s, LOWEST_S, HIGHEST_S) / LOWEST_S
        buckets = np.floor(np.log(shares) / _LOG_GROWTH).astype(np.int64)
        self._counts += np.bincount(buckets, minlength=_BUCKETS)

    def quantiles_s(self, *shares: float) -> tuple[float, ...] | None:
        """The smallest TTFTs that these shares of the requests do not exceed; None without requests."""
        if not self.count:
            return None
        ranks = [max(1, math.ceil(share * self.count)) for share in shares]
        buckets = np.searchsorted(np.cumsum(self._counts), ranks).tolist()
        return tuple(LOWEST_S * GROWTH ** (bucket + 0.5) for bucket in buckets)
