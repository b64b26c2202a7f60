"""The documents in docs/ name nothing that is not there: modules, rooms, contracts, links, commands."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from support.command_line import parameters
from support.recipes import recipes
from support.reference import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGE = ROOT / "extproc"


def spans(text: str) -> list[str]:
    """What stands in backticks outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_the_paths_that_a_document_names_exist(document: Path) -> None:
    named = [span for span in spans(document.read_text()) if re.fullmatch(r"\w[\w/.-]*(/|\.\w{2,4})", span)]
    assert len(named) > 10
    assert [path for path in named if not ((PACKAGE / path).exists() or (ROOT / path).exists())] == []


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_the_links_of_a_document_lead_somewhere(document: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", document.read_text()) if "://" not in link]
    assert links
    assert [link for link in links if not (document.parent / link.partition("#")[0]).exists()] == []


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


def test_the_commands_of_the_recipes_and_their_options_exist() -> None:
    text = "".join(block.text for recipe in recipes().values() for block in recipe.blocks)
    calls = re.findall(r"^extproc (.+)$", text.replace("\\\n", " "), re.MULTILINE)
    assert calls
    for call in calls:
        command, rest = parameters(shlex.split(call))
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("-")} <= known
