"""README and docs/ name nothing that is not there: modules, links, commands, settings, metrics, figures."""

import re
import tomllib
from pathlib import Path

import pytest
from support.command_line import parameters
from support.documents import (
    DOCS,
    GUIDES,
    LINKING,
    README,
    dead_links,
    extproc_calls,
    make_targets,
    named_settings,
    settings,
    shell_lines,
    spans,
)
from support.prometheus_rules import rules
from support.reference import METRICS, ROOT

from extproc.lab.rivals.choice import POLICIES

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
EVALUATE = (ROOT / "docs" / "evaluate.md").read_text()
RESULTS = (ROOT / "benchmarks" / "README.md").read_text()
PACKAGE = ROOT / "extproc"
MADE_LATER = {"extproc.yaml", "endpoints.yaml", "envoy.yaml", "cds.json", "rules.yml", "prometheus.yml"}
"""Files that a reader writes, that a run writes, or that stand in a directory named beside them."""
EVERY_GUIDE = pytest.mark.parametrize("document", GUIDES, ids=lambda path: path.name)


@EVERY_GUIDE
def test_the_paths_that_a_document_names_exist(document: Path) -> None:
    named = [span for span in spans(document.read_text()) if re.fullmatch(r"\w[\w/.-]*(/|\.\w{2,4})", span)]
    named = [path for path in named if path not in MADE_LATER | settings()]
    assert [path for path in named if not ((PACKAGE / path).exists() or (ROOT / path).exists())] == []


@pytest.mark.parametrize("document", LINKING, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_links_of_a_document_lead_somewhere(document: Path) -> None:
    assert dead_links(document) == []


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_the_readme_leads_to_every_document(document: Path) -> None:
    assert f"](docs/{document.name})" in README.read_text()


@EVERY_GUIDE
def test_the_commands_of_a_document_and_their_options_exist(document: Path) -> None:
    for call in extproc_calls(document.read_text()):
        command, rest = parameters(call)
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word.partition("=")[0] for word in rest if word.startswith("-")} <= known, call


@EVERY_GUIDE
def test_make_has_the_targets_of_a_document(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert [target for target in make_targets(document.read_text()) if f"\n{target}: " not in makefile] == []


@EVERY_GUIDE
def test_the_settings_that_a_document_names_exist(document: Path) -> None:
    assert set(named_settings(document.read_text())) - settings() - MADE_LATER == set()


@EVERY_GUIDE
def test_the_metrics_and_alerts_that_a_document_names_exist(document: Path) -> None:
    text = document.read_text()
    metrics = set(re.findall(r"^\| `(\w+)`", METRICS.read_text(), re.MULTILINE))
    assert set(re.findall(r"`(extproc_[a-z0-9_]+)", text)) - metrics == set()
    alerts = {rule.name for rule in rules() if rule.is_alert}
    assert {span for span in spans(text) if re.fullmatch(r"(Extproc|Envoy)[A-Z]\w+", span)} <= alerts


def test_the_guides_have_something_to_check() -> None:
    text = "\n".join(document.read_text() for document in GUIDES)
    assert len(extproc_calls(text)) > 20
    assert len(shell_lines(text)) > 40
    assert len(named_settings(text)) > 20
    assert {"up", "test", "bench"} <= make_targets(text)


def test_the_figures_of_the_comparison_are_those_of_the_report() -> None:
    figures = re.findall(r"\d+\.\d+ s, \d+ %", EVALUATE)
    assert len(figures) == 15
    assert [figure for figure in figures if figure.replace(" %", "%") not in RESULTS] == []
    assert "eleven other routing rules and two oracles" in EVALUATE
    assert len([name for name in POLICIES if not name.startswith("layered")]) == 11 + 2


def refused_shares(*scenarios: str) -> list[str]:
    """The shares that the policy refused, as the report has them."""
    rows = (
        re.search(rf"^\| {scenario} \| [^|(]*\(([\d.]+)%\)", RESULTS, re.MULTILINE) for scenario in scenarios
    )
    return [f"{row[1]} %" for row in rows if row]


def test_the_refused_shares_are_those_of_the_report() -> None:
    near, beyond = refused_shares("mixed 0\\.95", "mixed 1\\.2")
    assert f"{near} of the requests at 95 % load" in " ".join(EVALUATE.split())
    assert f"and {beyond} at 120 % load" in " ".join(EVALUATE.split())
    assert f"and {near} of the requests were refused" in " ".join(README.read_text().split())


def test_the_gain_of_reports_is_that_of_the_report() -> None:
    (figures,) = re.findall(r"from ([\d.]+) to ([\d.]+) %", (ROOT / "docs" / "deploy.md").read_text())
    assert [row for row in RESULTS.splitlines() if all(f" {figure} %" in row for figure in figures)]


def test_the_wheel_to_install_is_the_one_that_is_built() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wheel = f"dist/{project['name'].replace('-', '_')}-{project['version']}-py3-none-any.whl"
    assert wheel in (ROOT / "docs" / "deploy.md").read_text()


def test_every_room_is_on_the_map() -> None:
    rooms = {
        f"{path.parent.relative_to(PACKAGE)}/"
        for pattern in ("*/__init__.py", "lab/*/__init__.py")
        for path in PACKAGE.glob(pattern)
    }
    assert rooms - set(spans(ARCHITECTURE)) == set()


def test_the_ladder_is_that_of_the_import_contracts() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    assert "```\n" + "\n".join(layers).replace("extproc.", "") + "\n```" in ARCHITECTURE


def test_a_method_of_the_core_that_is_named_is_there() -> None:
    core = (PACKAGE / "routing" / "core.py").read_text()
    named = set(re.findall(r"`Core\.(\w+)`", ARCHITECTURE))
    assert named
    assert [name for name in named if f"    def {name}(" not in core] == []
