"""The commands and settings of docs/deploy-gateway.md are ones that there are."""

import json
import re
import shlex
from itertools import pairwise
from typing import Any

import pytest
import yaml
from support.command_line import parameters
from support.manifests import CHART, DEPLOY, GATEWAYS, ROOT, documents, helm

from extproc.config.stages import parse_config

TEXT = (ROOT / "docs" / "deploy-gateway.md").read_text()
BLOCKS = re.findall(r"^ *```(sh|yaml)\n(.*?)^ *```$", TEXT, re.DOTALL | re.MULTILINE)
CALLS = [
    shlex.split(line)
    for kind, block in BLOCKS
    if kind == "sh"
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


def calls(program: str) -> list[list[str]]:
    found = [call[1:] for call in CALLS if call[0] == program]
    assert found, program
    return found


INSTALLS = [call for call in calls("helm") if call[0] == "install"]


def options(call: list[str], *names: str) -> list[str]:
    """The values of these options."""
    return [value for name, value in pairwise(call) if name in names]


def test_only_programs_are_called_that_these_tests_look_at() -> None:
    known = {"kubectl", "helm", "docker", "curl", "extproc", "sed", "envoy"}
    assert {call[0] for call in CALLS if "=$(" not in call[0]} == known


def test_what_is_applied_is_there() -> None:
    applied = [path for call in calls("kubectl") for path in options(call, "-k")]
    assert applied
    assert [path for path in applied if not (ROOT / path / "kustomization.yaml").is_file()] == []


def test_objects_that_are_asked_for_are_made() -> None:
    releases = {call[1] for call in INSTALLS}
    asked = {word for call in calls("kubectl") for word in call if word.startswith("deployment/")}
    assert asked == {f"deployment/{release}-epp" for release in releases}
    assert {space for call in calls("kubectl") for space in options(call, "-n")} == {"llm"}
    (patch,) = [json.loads(text) for call in calls("kubectl") for text in options(call, "-p")]
    picker = patch["spec"]["endpointPickerRef"]
    assert picker["name"] in {f"{release}-epp" for release in releases}
    (pool,) = documents(DEPLOY / "gateway-api" / "base" / "pool.yaml")
    assert picker.keys() <= pool["spec"]["endpointPickerRef"].keys()
    assert picker["port"] == pool["spec"]["endpointPickerRef"]["port"]


@pytest.mark.parametrize("call", INSTALLS, ids=" ".join)
def test_values_of_the_chart_exist(call: list[str]) -> None:
    assert ROOT / call[2] == CHART
    for setting in options(call, "--set", "--set-json", "--set-string"):
        stage, _, field = setting.partition("=")[0].partition(".")
        assert field in VALUES[stage], setting


@pytest.mark.parametrize("call", INSTALLS, ids=" ".join)
def test_the_image_that_was_pushed_is_installed_and_the_gateway_may_call_it(
    call: list[str],
) -> None:
    answer = helm(*call[3:])
    assert answer.returncode == 0, answer.stderr
    made = [document for document in yaml.safe_load_all(answer.stdout) if document is not None]
    (pushed,) = {call[1] for call in calls("docker") if call[0] == "push"}
    (pods,) = (each["spec"]["template"]["spec"] for each in made if each["kind"] == "Deployment")
    assert [container["image"] for container in pods["containers"]] == [pushed]
    (rule,) = (each["spec"] for each in made if each["kind"] == "DestinationRule")
    assert rule["trafficPolicy"]["tls"]["mode"] == "SIMPLE"


def test_options_of_extproc_exist() -> None:
    for call in calls("extproc"):
        command, rest = parameters(call)
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known


def test_settings_can_be_used() -> None:
    settings = [
        block for kind, block in BLOCKS if kind == "yaml" and not block.lstrip().startswith("endpoints:")
    ]
    assert settings
    for text in settings:
        parse_config(text, "docs/deploy-gateway.md")


def test_every_gateway_is_in_the_table() -> None:
    rows: list[Any] = re.findall(r"^\| `deploy/gateway-api/([a-z-]+)/` \|", TEXT, re.MULTILINE)
    assert rows == [*GATEWAYS, "standalone"]
