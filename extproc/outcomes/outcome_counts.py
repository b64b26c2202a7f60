"""Outcomes counted, and TTFT in buckets: what `/metrics` shows of finished requests."""

import bisect
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from extproc.outcomes.sample import Sample

TTFT_BOUNDS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 50.0, 100.0)
"""Dense around the knee from 0.5 to 2 s, where routing matters."""


@dataclass(slots=True)
class TtftHistogram:
    """Counts per bucket, the last one for everything beyond the bounds; `sum_s` is the total."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(TTFT_BOUNDS_S) + 1))
    sum_s: float = 0.0

    def add(self, ttft_s: float) -> None:
        """One more TTFT."""
        self.counts[bisect.bisect_left(TTFT_BOUNDS_S, ttft_s)] += 1
        self.sum_s += ttft_s


class OutcomeCounts:
    """Counters since the start, by backend; those of backends that have left are dropped."""

    def __init__(self) -> None:
        self.by_result: Counter[tuple[str, str]] = Counter()
        self.ttft: defaultdict[str, TtftHistogram] = defaultdict(TtftHistogram)
        self.unplaced = 0

    def count(self, sample: Sample) -> None:
        """A placed request has finished; its result is `ok` or the failure."""
        self.by_result[sample.backend, sample.failure or "ok"] += 1
        if sample.ttft_s is not None:
            self.ttft[sample.backend].add(sample.ttft_s)

    def keep_only(self, backends: frozenset[str]) -> None:
        """Forget the backends that are no longer there, so that their number stays bounded."""
        self.by_result = Counter({key: n for key, n in self.by_result.items() if key[0] in backends})
        for gone in self.ttft.keys() - backends:
            del self.ttft[gone]
