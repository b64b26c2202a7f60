"""No rule and no panel can be empty by a typo: every name, label and value is one that a sidecar exports.

Envoy's names are held against a real Envoy, in tests/integration/test_observability.py.
"""

from collections.abc import Iterator

import pytest
from support.prometheus_rules import grouping_labels, matchers, names, panel_expressions, rules
from support.reference import all_metrics

from extproc.adapters.vllm.asked_server import ScrapeResult
from extproc.fleet.backend import Lifecycle
from extproc.fleet.zone import Zone
from extproc.outcomes.outcome import Failure
from extproc.policy.decision import Layer, Reason

VALUES = {
    "layer": {layer.value for layer in Layer},
    "reason": {reason.value for reason in Reason},
    "zone": {zone.value for zone in Zone},
    "state": {
        "ok",
        "probing",
        "failing",
        "saturated",
        "asleep",
        *(membership.value for membership in Lifecycle),
    },
    "result": {"ok", *(failure.value for failure in Failure), *(result.value for result in ScrapeResult)},
    "job": {"extproc", "envoy"},
}
TARGET = {"job", "instance"}
"""What Prometheus itself adds."""

EXPRESSIONS = [
    *((rule.name, rule.expression) for rule in rules()),
    *panel_expressions(),
]


@pytest.fixture(scope="module")
def labels() -> dict[str, set[str]]:
    """The labels of each series that a sidecar exports."""
    found: dict[str, set[str]] = {}
    for metric in all_metrics():
        for sample in metric.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def ours(expression: str) -> Iterator[str]:
    return (name for name in names(expression) if name.startswith("extproc_"))


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_every_metric_exists_and_has_the_labels(
    where: str, expression: str, labels: dict[str, set[str]]
) -> None:
    read = list(ours(expression))
    assert [name for name in read if name not in labels] == []
    for name, label, values in matchers(expression):
        if name in labels:
            assert label in labels[name] | TARGET, where
        if label in VALUES:
            assert set(values) <= VALUES[label], where
    if read and not names(expression) - set(read):
        known = set().union(*(labels[name] for name in read))
        assert grouping_labels(expression) <= known | TARGET, where


def test_recorded_series_that_are_read_are_recorded() -> None:
    recorded = {rule.name for rule in rules() if not rule.is_alert}
    read = {name for _, expression in EXPRESSIONS for name in names(expression) if ":" in name}
    assert read
    assert read <= recorded


def test_every_metric_is_on_the_dashboard_or_in_a_rule(labels: dict[str, set[str]]) -> None:
    read = {name for _, expression in EXPRESSIONS for name in ours(expression)}
    unread = labels.keys() - read
    assert {name for name in unread if not name.endswith(("_sum", "_count"))} == {
        "extproc_process_virtual_memory_bytes",
        "extproc_process_max_fds",
    }
