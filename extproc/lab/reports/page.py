"""The parts that all pages of the reports share: frame, tables, and the look of plots.

A page is one HTML file that needs no other. Figures are made without pyplot, which would keep them, and whose
state is global.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from string import Template
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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


INK, FAINT, BLUE = "#1c2430", "#66717f", "#3b63c4"
GREEN, ORANGE, RED = "#1a7f4b", "#c77700", "#c4262e"
_DPI = 150


def new_figure() -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes."""
    figure = Figure(figsize=(5.8, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(color="#e2e6eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    return figure, axes


def ttft_axis(axes: Axes, axis: Literal["x", "y"], ttft_s: npt.ArrayLike) -> None:
    """Make an axis logarithmic, with ticks at 1, 2, 5 and their tenfolds, as many as have room."""
    low, high = float(np.min(ttft_s)) * 0.9, float(np.max(ttft_s)) * 1.1
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    factors = (1, 2, 5) if len(decades) <= 5 else (1,)
    every = [factor * 10.0**decade for decade in decades for factor in factors]
    ticks = [tick for tick in every if low <= tick <= high]
    axes.set(**{f"{axis}scale": "log", f"{axis}lim": (low, high), f"{axis}label": "TTFT, s"})
    ticked = axes.xaxis if axis == "x" else axes.yaxis
    ticked.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    ticked.set_ticks([], minor=True)


def mark(axes: Axes, x: float, label: str | None = None) -> None:
    """Draw a faint dashed line at `x`."""
    axes.axvline(x, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label=label)


def png(figure: Figure) -> bytes:
    """Return the picture with a legend above it, in one row; the same figure gives the same bytes."""
    drawn = figure.axes[0].legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=4,
        fontsize=9,
        frameon=False,
        handletextpad=0.3,
        markerscale=2,
    )
    for handle in drawn.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    buffer = BytesIO()
    # Without metadata the bytes do not depend on the version of matplotlib.
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
