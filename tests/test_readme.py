"""The README names nothing that is not there: commands, options, targets, files, metrics."""

import re
import shlex

import pytest
from support.command_line import parameters
from support.prometheus_rules import rules
from support.reference import METRICS, ROOT

README = (ROOT / "README.md").read_text()
CODE_LINES = [
    line.strip()
    for block in re.findall(r"```sh\n(.*?)```", README.replace("\\\n", " "), re.DOTALL)
    for line in block.splitlines()
]
SPANS = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))
COMMAND = re.compile(r"^(?:\.venv/bin/)?extproc (?P<arguments>.+)")
CALLS = [
    match["arguments"].partition("   #")[0] for match in map(COMMAND.match, (*CODE_LINES, *SPANS)) if match
]


@pytest.mark.parametrize("call", CALLS)
def test_a_command_and_its_options_exist(call: str) -> None:
    command, rest = parameters(shlex.split(call))
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word for word in rest if word.startswith("-")} <= known


def test_make_has_the_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    calls = [line for line in (*CODE_LINES, *SPANS) if re.match(r"(\w+=\w+ )?make ", line)]
    targets = {re.split(r"\s+", call.partition("make ")[2])[0] for call in calls}
    assert {"up", "test", "bench"} <= targets
    assert [target for target in targets if f"\n{target}: " not in makefile] == []


def test_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {f"#{re.sub(r'[^a-z0-9 -]', '', heading.lower()).replace(' ', '-')}" for heading in headings}
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert len(links) > 5
    assert [link for link in links if link not in anchors and not (ROOT / link).exists()] == []


def test_metrics_and_alerts_exist() -> None:
    metrics = set(re.findall(r"^\| `(\w+)`", METRICS.read_text(), re.MULTILINE))
    named = set(re.findall(r"\bextproc_[a-z0-9_]+", README)) - {"extproc_pool"}
    assert named
    assert named <= metrics
    alerts = {rule.name for rule in rules() if rule.is_alert}
    assert set(re.findall(r"`((?:Extproc|Envoy)[A-Z]\w+)`", README)) <= alerts
