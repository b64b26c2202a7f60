"""The traffic of a while: the difference between two readings of the counters that `/metrics` has.

Nothing is counted for this on a request's path: a `CounterReading` copies the counters of one moment, and
`between` compares two as Prometheus' `increase` and `histogram_quantile` do.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from extproc.outcomes.outcome import Failure
from extproc.outcomes.outcome_counts import TTFT_BOUNDS_S, OutcomeCounts, quantile_s
from extproc.outcomes.traffic_window import ServerWindow, TrafficWindow
from extproc.policy.decision import DecisionCounts

_NO_DURATIONS = (0,) * (len(TTFT_BOUNDS_S) + 1)


FAILURES = frozenset(
    {Failure.CONNECT, Failure.RESET, Failure.TIMEOUT, Failure.SERVER_ERROR, Failure.STREAM_ERROR}
    | {Failure.RETRIED}
)
"""The results that failed at the backend, as the alert on a backend's errors counts them."""


@dataclass(frozen=True, slots=True)
class CounterReading:
    """The counters at `at_s`; TTFT in buckets. Backends that have left are in the sums only."""

    at_s: float
    decisions: Mapping[str, int] = field(default_factory=dict)
    results: Mapping[str, int] = field(default_factory=dict)
    failed_open: int = 0
    ttft: Sequence[int] = _NO_DURATIONS
    client_ttft: Sequence[int] = _NO_DURATIONS
    backend_results: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    backend_ttft: Mapping[str, Sequence[int]] = field(default_factory=dict)


def read_counters(decisions: DecisionCounts, outcomes: OutcomeCounts, now_s: float) -> CounterReading:
    """Copy the counters."""
    results = Counter(outcomes.left_results)
    by_backend: dict[str, dict[str, int]] = {}
    for (backend, result), count in outcomes.by_result.items():
        results[result] += count
        by_backend.setdefault(backend, {})[result] = count
    ttft = {backend: tuple(histogram.counts) for backend, histogram in outcomes.ttft.items()}
    return CounterReading(
        at_s=now_s,
        decisions={
            f"{layer.value}.{reason.value}": count
            for (layer, reason), count in sorted(decisions.by_reason.items())
        },
        results=results,
        failed_open=outcomes.failed_open,
        ttft=[sum(counts) for counts in zip(outcomes.left_ttft.counts, *ttft.values(), strict=True)],
        client_ttft=tuple(outcomes.client_ttft.counts),
        backend_results=by_backend,
        backend_ttft=ttft,
    )


def between(earlier: CounterReading, later: CounterReading) -> TrafficWindow:
    """Return the traffic between two readings."""
    results = _more(earlier.results, later.results)
    ttft = _more_durations(earlier.ttft, later.ttft)
    client_ttft = _more_durations(earlier.client_ttft, later.client_ttft)
    return TrafficWindow(
        seconds=later.at_s - earlier.at_s,
        decisions=_more(earlier.decisions, later.decisions),
        results=results,
        failed=_failed(results),
        failed_open=later.failed_open - earlier.failed_open,
        ttft_p50_s=quantile_s(TTFT_BOUNDS_S, ttft, 0.5),
        ttft_p99_s=quantile_s(TTFT_BOUNDS_S, ttft, 0.99),
        client_ttft_p50_s=quantile_s(TTFT_BOUNDS_S, client_ttft, 0.5),
        client_ttft_p99_s=quantile_s(TTFT_BOUNDS_S, client_ttft, 0.99),
    )


def backend_between(name: str, earlier: CounterReading, later: CounterReading) -> ServerWindow:
    """Return the traffic of one backend; one that has left meanwhile and come back has begun anew."""
    results = _more(earlier.backend_results.get(name, {}), later.backend_results.get(name, {}))
    ttft = _more_durations(
        earlier.backend_ttft.get(name, _NO_DURATIONS), later.backend_ttft.get(name, _NO_DURATIONS)
    )
    return ServerWindow(
        results=results,
        failed=_failed(results),
        ttft_p50_s=quantile_s(TTFT_BOUNDS_S, ttft, 0.5),
        ttft_p99_s=quantile_s(TTFT_BOUNDS_S, ttft, 0.99),
    )


def _failed(results: Mapping[str, int]) -> int:
    return sum(count for name, count in results.items() if name in FAILURES)


def _more(earlier: Mapping[str, int], later: Mapping[str, int]) -> dict[str, int]:
    """Return by how much each has grown, those that have not left out."""
    if any(later.get(key, 0) < count for key, count in earlier.items()):
        earlier = {}
    return {key: more for key, count in later.items() if (more := count - earlier.get(key, 0))}


def _more_durations(earlier: Sequence[int], later: Sequence[int]) -> Sequence[int]:
    if earlier is _NO_DURATIONS:
        return later
    more = [count - before for before, count in zip(earlier, later, strict=True)]
    return later if min(more) < 0 else more
