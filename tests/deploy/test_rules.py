import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from support.prometheus_rules import DIRECTORY, RULES, rules

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not there: apt-get install --no-install-recommends prometheus",
)


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], check=False, capture_output=True, text=True, timeout=60)


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    found = promtool("check", "config", DIRECTORY / "prometheus.yml")
    assert found.returncode == 0, found.stderr
    assert f"{len(rules())} rules found" in found.stdout


def test_alerts_fire_when_they_should_and_only_then() -> None:
    found = promtool("test", "rules", DIRECTORY / "rules_test.yml")
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_alert_fires_in_the_tests() -> None:
    text = (DIRECTORY / "rules_test.yml").read_text()
    alerts = [rule.name for rule in rules() if rule.is_alert]
    assert [
        name for name in alerts if f'alertname="{name}", ' not in text and f"alertname: {name}\n" not in text
    ] == []


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                assert rule["labels"]["severity"] in {"critical", "warning"}
                assert set(rule["annotations"]) == {"summary", "description"}
