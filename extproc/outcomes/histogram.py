"""Durations counted in buckets, as Prometheus' histograms have them."""

import bisect


class Histogram:
    """One count per bucket, the last one for what is beyond `bounds_s`; `sum_s` is the total."""

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self.bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def add(self, duration_s: float) -> None:
        """Count a duration in the first bucket whose bound is not below it."""
        self.counts[bisect.bisect_left(self.bounds_s, duration_s)] += 1
        self.sum_s += duration_s
