import base64
import hashlib
import re
from collections import Counter
from pathlib import Path

import msgspec
import pytest

import extproc.adapters.http
from extproc.adapters.http.fleet_state import (
    BackendStatus,
    FleetState,
    ModelServers,
    ModelStatus,
    QueueStatus,
    Symptom,
    TrafficSteps,
)
from extproc.adapters.http.live_page import live_page
from extproc.outcomes.traffic_window import ServerWindow, TrafficWindow

KINDS: dict[str, type[msgspec.Struct]] = {
    "state": FleetState,
    "backend": BackendStatus,
    "model": ModelStatus,
    "queue": QueueStatus,
    "symptom": Symptom,
    "served": ModelServers,
    "history": TrafficSteps,
    "traffic": TrafficWindow,
    "minute": ServerWindow,
    "whole": ServerWindow,
    "last_minute": TrafficWindow,
}
"""By the names that the script has for them; `client_left` is a result, and no field."""
PAGE = Path(extproc.adapters.http.__file__).with_name("live_page.html").read_text()
SCRIPT = PAGE.partition("<script>")[2]


@pytest.mark.parametrize("loader", ["http:", "https:", "//cdn", " src=", "@import", "url("])
def test_page_loads_nothing_but_the_state(loader: str) -> None:
    assert loader not in PAGE


@pytest.mark.parametrize("sink", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("])
def test_names_cannot_become_markup(sink: str) -> None:
    assert sink not in PAGE
    assert "textContent" in PAGE


@pytest.mark.parametrize(("variable", "kind"), KINDS.items())
def test_page_reads_only_fields_that_the_state_has(variable: str, kind: type[msgspec.Struct]) -> None:
    read = set(re.findall(rf"\b{variable}\.(\w+)", SCRIPT))
    assert read
    assert read <= set(kind.__struct_fields__)


def test_page_reads_fields_by_those_variables_alone() -> None:
    """Names of JavaScript have no underscore, so a field elsewhere would show."""
    read = Counter(re.findall(r"\w+\.(\w+_\w+)", SCRIPT))
    known = Counter(re.findall(rf"\b(?:{'|'.join(KINDS)})\.(\w+_\w+)", SCRIPT))
    assert read - known == {"client_left": 1}


def test_a_browser_runs_only_the_style_and_the_script_of_the_page() -> None:
    page, headers = live_page()
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    for tag, source in (("style", "style-src"), ("script", "script-src")):
        (text,) = re.findall(rf"<{tag}>(.*)</{tag}>", page.decode(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}';" in policy
    assert "unsafe" not in policy
    assert not re.search(r"\s(?:on\w+|style)=", PAGE.replace(SCRIPT, "")), "else the policy would stop it"
