import re
from collections import Counter
from pathlib import Path

import msgspec
import pytest

import extproc.adapters.http
from extproc.adapters.http.fleet_state import BackendStatus, FleetState, ModelStatus, QueueStatus

PAGE = Path(extproc.adapters.http.__file__).with_name("live_page.html").read_text()
SCRIPT = PAGE.partition("<script>")[2]


@pytest.mark.parametrize("loader", ["http:", "https:", "//cdn", " src=", "@import", "url("])
def test_page_loads_nothing_but_the_state(loader: str) -> None:
    assert loader not in PAGE


@pytest.mark.parametrize("sink", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("])
def test_names_cannot_become_markup(sink: str) -> None:
    assert sink not in PAGE
    assert "textContent" in PAGE


@pytest.mark.parametrize(
    ("variable", "kind"),
    [("state", FleetState), ("backend", BackendStatus), ("model", ModelStatus), ("queue", QueueStatus)],
)
def test_page_reads_only_fields_that_the_state_has(variable: str, kind: type[msgspec.Struct]) -> None:
    read = set(re.findall(rf"\b{variable}\.(\w+)", SCRIPT))
    assert read
    assert read <= set(kind.__struct_fields__)


def test_page_reads_fields_by_those_variables_alone() -> None:
    """Names of JavaScript have no underscore, so a field elsewhere would show."""
    read = Counter(re.findall(r"\w+\.(\w+_\w+)", SCRIPT))
    known = Counter(re.findall(r"\b(?:state|backend|model|queue)\.(\w+_\w+)", SCRIPT))
    assert read == known
