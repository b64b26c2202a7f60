"""Outcomes counted, and TTFT in buckets: what `/metrics` shows of finished requests."""

import bisect
from collections import Counter, defaultdict
from collections.abc import Sequence

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

    def take_in(self, other: "Histogram") -> None:
        """Add the durations of another histogram of the same bounds."""
        self.counts = [own + more for own, more in zip(self.counts, other.counts, strict=True)]
        self.sum_s += other.sum_s


def quantile_s(bounds_s: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Estimate the duration that a `share` of those counted are below, None where there are none.

    As Prometheus' histogram_quantile does: evenly spread within a bucket, the last bound for those beyond it.
    """
    rank, below, lower_s = share * sum(counts), 0, 0.0
    if not rank:
        return None
    for bound_s, count in zip(bounds_s, counts, strict=False):
        if below + count >= rank:
            return lower_s + (bound_s - lower_s) * (rank - below) / count
        below, lower_s = below + count, bound_s
    return lower_s


TTFT_BOUNDS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 50.0, 100.0)
"""Dense around the knee from 0.5 to 2 s, where routing matters."""


class OutcomeCounts:
    """Counters since the start, by backend; those of backends that have left are added up without names.

    Envoy sent `failed_open` requests to a backend that no decision had placed. They are `unplaced` as well,
    and so are those that were refused.
    """

    def __init__(self) -> None:
        self.by_result: Counter[tuple[str, str]] = Counter()
        self.ttft: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(TTFT_BOUNDS_S))
        self.client_ttft = Histogram(TTFT_BOUNDS_S)
        self.left_results: Counter[str] = Counter()
        self.left_ttft = Histogram(TTFT_BOUNDS_S)
        self.unplaced = self.failed_open = 0

    def count(self, sample: Sample, client_ttft_s: float | None = None) -> None:
        """Count a placed request that has finished; its result is `ok` or the failure."""
        self.by_result[sample.backend, sample.failure or "ok"] += 1
        if sample.ttft_s is not None:
            self.ttft[sample.backend].add(sample.ttft_s)
        if client_ttft_s is not None:
            self.client_ttft.add(client_ttft_s)

    def keep_only(self, backends: frozenset[str]) -> None:
        """Add up the backends that are no longer there, so that the number of counters stays bounded."""
        for backend, result in [key for key in self.by_result if key[0] not in backends]:
            self.left_results[result] += self.by_result.pop((backend, result))
        for gone in self.ttft.keys() - backends:
            self.left_ttft.take_in(self.ttft.pop(gone))
