"""Families of metrics as Prometheus' client has them, made of the values that they have now."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from extproc.outcomes.outcome_counts import Histogram

Labels = tuple[str, ...]
"""A value of each label; enums show their values."""


def counter(name: str, documentation: str, value: float) -> Metric:
    """Return a counter without labels."""
    return CounterMetricFamily(name, documentation, value=value)


def gauge(name: str, documentation: str, value: float) -> Metric:
    """Return a gauge without labels."""
    return GaugeMetricFamily(name, documentation, value=float(value))


def counters(
    name: str, documentation: str, labels: Sequence[str], values: Iterable[tuple[Labels, float]]
) -> Metric:
    """Return a counter for each combination of labels that was counted."""
    return _filled(CounterMetricFamily(name, documentation, labels=labels), values)


def gauges(
    name: str, documentation: str, labels: Sequence[str], values: Iterable[tuple[Labels, float]]
) -> Metric:
    """Return a gauge for each combination of labels."""
    return _filled(GaugeMetricFamily(name, documentation, labels=labels), values)


def histograms(
    name: str, documentation: str, labels: Sequence[str], values: Iterable[tuple[Labels, Histogram]]
) -> Metric:
    """Return a histogram for each combination of labels."""
    family = HistogramMetricFamily(name, documentation, labels=labels)
    for key, histogram in values:
        bounds = [*map(str, histogram.bounds_s), "+Inf"]
        family.add_metric(key, list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.sum_s)
    return family


def _filled(
    family: CounterMetricFamily | GaugeMetricFamily, values: Iterable[tuple[Labels, float]]
) -> Metric:
    for key, value in values:
        family.add_metric([str(each) for each in key], float(value))
    return family
