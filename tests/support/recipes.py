"""The recipes of docs/extending.md: their code blocks, and the copy of the source tree that they change."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from support.reference import ROOT

EXTENDING = ROOT / "docs" / "extending.md"
COPIED = (
    "extproc",
    "models",
    "envoy",
    "tests/conftest.py",
    "tests/policy",
    "tests/support",
    "pyproject.toml",
)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NAMED = re.compile(r"(?:# |\+\+\+ )(\S+)\n")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language and its text."""

    language: str
    text: str

    @property
    def path(self) -> str:
        """The file that the block makes or changes; empty if it does neither."""
        named = _NAMED.match(self.text) if self.language in {"python", "diff"} else None
        return "" if named is None else named[1]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The blocks below one heading, in their order."""

    blocks: Sequence[Block]

    def text(self, language: str) -> str:
        """Return the only block in a language."""
        (found,) = [block.text for block in self.blocks if block.language == language]
        return found

    def stages(self) -> dict[str, Any]:
        """Return the configuration that the recipe shows."""
        stages: dict[str, Any] = yaml.safe_load(self.text("yaml"))
        return stages

    def apply(self, tree: Path) -> list[Path]:
        """Make and change the files of a tree as the recipe says; returns their paths."""
        return [_apply(block, tree / block.path) for block in self.blocks if block.path]


def recipes() -> Mapping[str, Recipe]:
    """Return all recipes by their headings."""
    sections = re.split(r"^## (.+)$", EXTENDING.read_text(), flags=re.MULTILINE)[1:]
    return {
        heading: Recipe([Block(*found) for found in _BLOCK.findall(section)])
        for heading, section in zip(sections[::2], sections[1::2], strict=True)
    }


def copy_tree(target: Path) -> Path:
    """Copy what a sidecar and the tests of the policy need, the generated stubs included."""
    for name in COPIED:
        source, copied = ROOT / name, target / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copied, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copied)
    return target


def _apply(block: Block, path: Path) -> Path:
    if block.language == "python":
        assert not path.exists(), f"{path} is there already"
        path.write_text(block.text.partition("\n")[2])
        return path
    text = path.read_text()
    for hunk in block.text.partition("\n@@\n")[2].split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        assert all(line[0] in " +-\n" for line in lines), hunk
        before = "".join(line[1:] or line for line in lines if line[0] != "+")
        after = "".join(line[1:] or line for line in lines if line[0] != "-")
        assert text.count(before) == 1, f"found {text.count(before)} times in {path}:\n{before}"
        text = text.replace(before, after)
    path.write_text(text)
    return path
