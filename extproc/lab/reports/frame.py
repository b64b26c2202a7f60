"""What all pages of the reports have in common: their frame and style, in one file that needs no other."""

from pathlib import Path
from string import Template

_DIRECTORY = Path(__file__).parent


def framed(title: str, template: str, **parts: str) -> bytes:
    """The page: `template`.html with its parts, which are HTML already, within the frame."""
    content = _read(template).substitute(parts)
    return _read("frame").substitute(title=title, content=content).encode()


def _read(name: str) -> Template:
    return Template((_DIRECTORY / f"{name}.html").read_text(encoding="utf-8"))
