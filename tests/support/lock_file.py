"""The lock file: every dependency at one version, with the hashes of its wheels, for every supported Python.

`make lock` writes it. uv resolves the ranges of pyproject.toml for all Pythons and platforms together. The
versions of the present file stay where the ranges allow them, unless `--upgrade` is given. This module
imports only the standard library, since it runs before anything is installed.

The Dockerfile cuts the file into its sections by their titles. pip cannot do that: with hashes it takes whole
files, and no constraints.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
IMAGE, BUILDING, DEVELOPMENT = "# The image", "# Building", "# Development"
HEAD = """\
# Every dependency, with hashes, for every supported Python. `make lock` writes it from pyproject.toml.
# Each section needs those above it. Only wheels are allowed: pip would build other files with unlocked tools.
--only-binary :all:
"""
OPTIONS = (
    *("--quiet", "--universal", "--no-annotate", "--no-header", "--no-emit-index-url"),
    *("--only-binary", ":all:"),
)

EXTRAS_IN_IMAGE = ("--extra", "kubernetes", "--extra", "tracing")

Versions = dict[str, set[str]]
"""The locked versions by name. Most names have one; a second one is for other Pythons or platforms."""


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def entries(text: str) -> list[str]:
    """The requirements of a lock file, each with its hashes."""
    return re.findall(r"^\w.*(?:\n +--hash=.*)*\n", text, re.MULTILINE)


def pin(entry: str) -> tuple[str, str]:
    """Name and version."""
    name, version = entry.split(maxsplit=1)[0].split("==")
    return name, version


def versions(text: str) -> Versions:
    found: Versions = {}
    for name, version in map(pin, entries(text)):
        found.setdefault(name, set()).add(version)
    return found


def write_lock(target: Path, uv: str, arguments: Sequence[str]) -> None:
    """Resolve the ranges, and write a lock file; `target` is read first, for the versions to keep."""
    project = pyproject()
    python = project["project"]["requires-python"].removeprefix(">=")

    def resolve(*sources: str | Path, asked: str = "") -> str:
        # uv fetches no other interpreter than this one. The lock goes up from the oldest supported version.
        pythons = ("--python", sys.executable, "--python-version", python)
        command = [uv, "pip", "compile", *OPTIONS, *pythons, *sources]
        done = subprocess.run(command, cwd=ROOT, input=asked, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout

    building = "\n".join(project["build-system"]["requires"])
    target.touch()
    resolve(
        "-", "pyproject.toml", "--all-extras", "--generate-hashes", "-o", target, *arguments, asked=building
    )
    everything = entries(target.read_text())
    in_image = versions(resolve("pyproject.toml", *EXTRAS_IN_IMAGE, "-c", target))
    for_building = versions(resolve("-", "-c", target, asked=building))

    sections: dict[str, list[str]] = {IMAGE: [], BUILDING: [], DEVELOPMENT: []}
    for entry in everything:
        name, _ = pin(entry)
        title = IMAGE if name in in_image else BUILDING if name in for_building else DEVELOPMENT
        sections[title].append(entry)
    meanings = {
        IMAGE: "what the package needs, and its extras `kubernetes` and `tracing`",
        BUILDING: "what [build-system] needs beside that",
        DEVELOPMENT: "what the other extras need beside that",
    }
    parts = (f"\n{title}: {meanings[title]}\n{''.join(sections[title])}" for title in sections)
    target.write_text(HEAD + "".join(parts))


if __name__ == "__main__":
    write_lock(LOCK, sys.argv[1], sys.argv[2:])
