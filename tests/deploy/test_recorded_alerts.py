"""Alerts by recorded metrics: quiet and busy days, an overload and a sick backend fire what they should."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.alert_series import DIRECTORY, DURATION_S, INTERVAL_S, LOADS, SICK
from support.prometheus_rules import RULES, names, rules

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not there: apt-get install --no-install-recommends prometheus",
)

EVER_FIRED = 'count by (alertname, severity, backend) (count_over_time(ALERTS{alertstate="firing"}[1h]))'
UP = {"series": 'up{job="extproc", instance="a"}', "values": "1x200"}
FIRES: dict[str, list[str]] = {
    "quiet": [],
    "busy": [],
    "overload": [
        'alertname="ExtprocOverloaded", severity="critical"',
        'alertname="ExtprocRefuses", severity="warning"',
    ],
    "sick": [f'alertname="ExtprocBackendErrors", severity="warning", backend="{SICK}"'],
}

NOT_RECORDED = {
    "extproc_process_cpu_seconds_total",
    "extproc_process_start_time_seconds",
    "extproc_queue_ended_total",
    "extproc_sample_batches_retried_total",
    "extproc_samples_dropped_total",
    "extproc_trainer_seen_timestamp_seconds",
}
"""These come from the process, the sample store, or the trainer, or there only with a queue."""


def rule_test(name: str) -> dict[str, Any]:
    """A test for promtool: which alerts have fired by the end of a recording."""
    series = yaml.safe_load((DIRECTORY / f"{name}.yml").read_text())
    expected = [{"labels": f"{{{labels}}}", "value": 1} for labels in FIRES[name]]
    return {
        "name": name,
        "interval": f"{INTERVAL_S:.0f}s",
        "input_series": [UP, *({"series": key, "values": str(value)} for key, value in series.items())],
        "promql_expr_test": [
            {"expr": EVER_FIRED, "eval_time": f"{DURATION_S - 60:.0f}s", "exp_samples": expected}
        ],
    }


@pytest.mark.parametrize("name", LOADS)
def test_a_recording_has_what_the_rules_read(name: str) -> None:
    recorded = {key.partition("{")[0] for key in yaml.safe_load((DIRECTORY / f"{name}.yml").read_text())}
    read = {metric for rule in rules() for metric in names(rule.expression)}
    assert {metric for metric in read - recorded if metric.startswith("extproc_")} == NOT_RECORDED


def test_each_recording_fires_what_it_should_and_nothing_else(tmp_path: Path) -> None:
    tests = [rule_test(name) for name in LOADS]
    document = {"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": tests}
    path = tmp_path / "recorded.yml"
    path.write_text(yaml.safe_dump(document))
    found = subprocess.run(
        ["promtool", "test", "rules", path], check=False, capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stdout + found.stderr
