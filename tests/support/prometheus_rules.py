"""What rules and dashboard ask a Prometheus: the expressions, and the names and labels in them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DIRECTORY = Path(__file__).parents[2] / "deploy" / "observability"
RULES = DIRECTORY / "rules.yml"
DASHBOARD = DIRECTORY / "grafana" / "dashboards" / "extproc.json"

_SELECTOR = re.compile(r"(?P<name>\b[a-z_]+[a-z0-9_:]*|ALERTS)\{(?P<matchers>[^}]*)\}")
_MATCHER = re.compile(r'(?P<label>\w+)\s*(?P<operator>=~|!~|!=|=)\s*"(?P<value>[^"]*)"')
_NAME = re.compile(r"\b(?:extproc|envoy)_[a-z0-9_]+|\b[a-z_]+:[a-z0-9_:]+")
_GROUPING = re.compile(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\((?P<labels>[^)]*)\)")


@dataclass(frozen=True, slots=True)
class Rule:
    """A recording rule or an alert, by its name."""

    name: str
    expression: str
    is_alert: bool


def rules() -> list[Rule]:
    """All rules of the rules file."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [
        Rule(rule.get("alert") or rule["record"], rule["expr"], "alert" in rule)
        for group in groups
        for rule in group["rules"]
    ]


def panel_expressions() -> list[tuple[str, str]]:
    """The title and each expression of every panel, as Grafana sends them where everything is selected."""
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return [
        (panel["title"], target["expr"].replace("$instance", ".*").replace("$backend", ".*"))
        for panel in panels
        for target in panel.get("targets", ())
    ]


def names(expression: str) -> set[str]:
    """The metrics of ours and of Envoy's, and the recorded series, that an expression reads."""
    without_values = re.sub(r'"[^"]*"', '""', expression)
    return set(_NAME.findall(without_values))


def matchers(expression: str) -> Iterator[tuple[str, str, list[str]]]:
    """Metric, label and the values of each matcher."""
    for selector in _SELECTOR.finditer(expression):
        for matcher in _MATCHER.finditer(selector["matchers"]):
            yield selector["name"], matcher["label"], matcher["value"].split("|")


def grouping_labels(expression: str) -> set[str]:
    """The labels that are summed by, or matched on."""
    lists = [found["labels"].split(",") for found in _GROUPING.finditer(expression)]
    return {label.strip() for labels in lists for label in labels} - {""}
