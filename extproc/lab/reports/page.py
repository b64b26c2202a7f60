"""The parts that all pages of the reports share. A page is one HTML file that needs no other."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

_DIRECTORY = Path(__file__).parent


def framed(title: str, template: str, **parts: str) -> bytes:
    """Return the page: `template`.html with its parts, which are HTML already, within the frame."""
    content = _read(template).substitute(parts)
    return _read("frame").substitute(title=title, content=content).encode()


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, its texts escaped; the first column is text, the others are numbers."""
    head = "".join(f"<th>{escape(text)}" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}" for text in row) for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}<tbody>{body}</table></div>'


def cell(form: str, *values: float | None) -> str:
    """Return the values formatted for a table, a dash where one is missing."""
    return "-" if None in values else form.format(*values)


def figure(caption: str, png: bytes) -> str:
    """Return a picture with its caption."""
    data = b64encode(png).decode("ascii")
    title = escape(caption)
    return (
        f'<figure><figcaption>{title}</figcaption><img alt="{title}" src="data:image/png;base64,{data}">'
        "</figure>"
    )


def _read(name: str) -> Template:
    return Template((_DIRECTORY / f"{name}.html").read_text(encoding="utf-8"))
