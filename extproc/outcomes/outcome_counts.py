"""Outcomes counted, and TTFT in buckets: what `/metrics` shows of finished requests."""

import bisect
from collections import Counter, defaultdict

from extproc.outcomes.facts import Sample


class Histogram:
    """Durations in buckets as Prometheus has them, the last one for those beyond `bounds_s`."""

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self.bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def add(self, duration_s: float) -> None:
        """Count a duration in the first bucket whose bound is not below it."""
        self.counts[bisect.bisect_left(self.bounds_s, duration_s)] += 1
        self.sum_s += duration_s


TTFT_BOUNDS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 50.0, 100.0)
"""Dense around the knee from 0.5 to 2 s, where routing matters."""


class OutcomeCounts:
    """Counters since the start, by backend; those of backends that have left are dropped."""

    def __init__(self) -> None:
        self.by_result: Counter[tuple[str, str]] = Counter()
        self.ttft: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(TTFT_BOUNDS_S))
        self.client_ttft = Histogram(TTFT_BOUNDS_S)
        self.unplaced = 0

    def count(self, sample: Sample, client_ttft_s: float | None = None) -> None:
        """Count a placed request that has finished; its result is `ok` or the failure."""
        self.by_result[sample.backend, sample.failure or "ok"] += 1
        if sample.ttft_s is not None:
            self.ttft[sample.backend].add(sample.ttft_s)
        if client_ttft_s is not None:
            self.client_ttft.add(client_ttft_s)

    def keep_only(self, backends: frozenset[str]) -> None:
        """Forget the backends that are no longer there, so that their number stays bounded."""
        self.by_result = Counter({key: n for key, n in self.by_result.items() if key[0] in backends})
        for gone in self.ttft.keys() - backends:
            del self.ttft[gone]
