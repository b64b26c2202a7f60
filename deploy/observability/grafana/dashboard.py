"""Grafana's JSON of the dashboard that dashboard.yaml describes; `make reference` writes it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

WIDTH, HEIGHT = 24, 8
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
FILTERS = {
    "<sidecar>": 'job="extproc", instance=~"$instance"',
    "<backend>": 'job="extproc", instance=~"$instance", backend=~"$backend"',
    "<envoy>": 'job="envoy", envoy_http_conn_manager_prefix="inference"',
}


def dashboard(rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The dashboard in Grafana's JSON model."""
    variables = [
        {"name": "datasource", "label": "data source", "type": "datasource", "query": "prometheus"},
        _variable("instance", "sidecar"),
        _variable("backend", "backend"),
    ]
    return {
        "uid": "extproc",
        "title": "extproc",
        "tags": ["extproc", "envoy", "vllm"],
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "graphTooltip": 1,
        "templating": {"list": variables},
        "panels": list(_placed(rows)),
    }


def _variable(label: str, title: str) -> dict[str, Any]:
    return {
        "name": label,
        "label": title,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": f"label_values(extproc_backend_routable, {label})", "refId": label},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "sort": 1,
    }


def _placed(rows: dict[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """The panels, row after row, from left to right; numbers take a sixth of the width, all else a third."""
    number, y = 1, 0
    for title, panels in rows.items():
        position = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": position,
            "panels": [],
        }
        number, x, y = number + 1, 0, y + 1
        height = 0
        for panel in panels:
            width, height = (WIDTH // 6, HEIGHT // 2) if panel.get("type") == "stat" else (WIDTH // 3, HEIGHT)
            if x + width > WIDTH:
                x, y = 0, y + height
            yield _panel(panel, number, {"x": x, "y": y, "w": width, "h": height})
            number, x = number + 1, x + width
        y += height


def _panel(panel: dict[str, Any], number: int, position: dict[str, int]) -> dict[str, Any]:
    targets = enumerate(panel["queries"].items())
    return {
        "id": number,
        "type": panel.get("type", "timeseries"),
        "title": panel["title"],
        "description": panel.get("description", ""),
        "datasource": DATASOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
        "targets": [_target(index, legend, expression) for index, (legend, expression) in targets],
    }


def _target(index: int, legend: str, expression: str) -> dict[str, Any]:
    for name, filters in FILTERS.items():
        expression = expression.replace(name, filters)
    return {
        "refId": chr(ord("A") + index),
        "datasource": DATASOURCE,
        "expr": expression,
        "legendFormat": legend,
    }


def _field(panel: dict[str, Any]) -> dict[str, Any]:
    field: dict[str, Any] = {"unit": panel["unit"]}
    if "type" not in panel:
        is_stacked = panel.get("stacked", False)
        custom = {
            "fillOpacity": 25 if is_stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if is_stacked else "none"},
        }
        field |= {"min": 0, "custom": custom}
    return field


def _options(panel: dict[str, Any]) -> dict[str, Any]:
    if panel.get("type") == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area"}
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": "type" not in panel}
    if panel.get("type") == "state-timeline":
        return {"legend": legend, "mergeValues": True, "showValue": "never", "rowHeight": 0.9}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def dashboard_text() -> str:
    """The JSON of dashboard.yaml."""
    rows = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    return json.dumps(dashboard(rows), indent=1) + "\n"
