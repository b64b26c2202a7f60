"""The documents that people read, and what they name: commands, links, paths, settings."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from support.reference import CONFIGURATION, ROOT

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
GUIDES = [README, *DOCS]
"""Documents whose commands are typed by a reader."""
LINKING = [*GUIDES, *map(ROOT.joinpath, ("SECURITY.md", "benchmarks/README.md", "models/README.md"))]
_COMMAND = re.compile(r"^(?:\.venv/bin/)?extproc (?P<arguments>.+)")
_SETTING = re.compile(r"[a-z_]+(\[\])?(\.[a-z_]+)+")


def spans(text: str) -> list[str]:
    """Return everything in backticks outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE))


def shell_lines(text: str) -> list[str]:
    """Return the lines of the shell blocks, each command on one line."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", text.replace("\\\n", " "), re.DOTALL | re.MULTILINE)
    return [line.strip() for block in blocks for line in block.splitlines()]


def extproc_calls(text: str) -> list[list[str]]:
    """Return the arguments of every call of `extproc`, in blocks and in backticks."""
    found = map(_COMMAND.match, (*shell_lines(text), *spans(text)))
    return [shlex.split(match["arguments"], comments=True) for match in found if match]


def make_targets(text: str) -> set[str]:
    """Return the targets that the text calls `make` with."""
    calls = (re.match(r"(?:\w+=\S+ )?make ([a-z-]+)", line) for line in (*shell_lines(text), *spans(text)))
    return {call[1] for call in calls if call}


def dead_links(document: Path) -> list[str]:
    """Return the links to files and headings that do not exist."""
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    return [link for link in links if "://" not in link and not _leads_somewhere(document, link)]


def settings() -> set[str]:
    """Return all settings by their dotted names; those of a backend begin with `backends[]`."""
    text = CONFIGURATION.read_text()
    sections = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return {name for pair in zip(sections[::2], sections[1::2], strict=True) for name in _fields(*pair)}


def named_settings(text: str) -> list[str]:
    """Return the dotted names in backticks that begin with a stage of the configuration."""
    stages = {name.partition(".")[0] for name in settings()}
    dotted = [span for span in spans(text) if _SETTING.fullmatch(span)]
    return [name for name in dotted if name.partition(".")[0] in stages]


def _fields(heading: str, section: str) -> Iterator[str]:
    for name in re.findall(r"^\| `(\w+)` ", section, re.MULTILINE):
        yield f"{heading}.{name}"


def _leads_somewhere(document: Path, link: str) -> bool:
    path, _, heading = link.partition("#")
    target = document.parent / path if path else document
    return target.exists() and (not heading or heading in _anchors(target))


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}
