"""What all plots of the reports have in common: their look, seconds on a logarithmic axis, PNG.

Figures are made without pyplot, which would keep them, and whose state is global.
"""

from base64 import b64encode
from html import escape
from io import BytesIO

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, FAINT = "#1c2430", "#66717f"
_DPI = 150


def new_figure() -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
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


def plain_ticks(axes: Axes, axis: str, ttft_s: npt.NDArray[np.float64]) -> None:
    """Seconds as people write them, at 1, 2, 5 and their tenfolds, as many as have room."""
    low, high = float(ttft_s.min()) * 0.9, float(ttft_s.max()) * 1.1
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    factors = (1, 2, 5) if len(decades) <= 5 else (1,)
    every = [factor * 10.0**decade for decade in decades for factor in factors]
    ticks = [tick for tick in every if low <= tick <= high]
    set_limits = axes.set_xlim if axis == "x" else axes.set_ylim
    set_ticks = axes.set_xticks if axis == "x" else axes.set_yticks
    set_limits(low, high)
    set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    set_ticks([], minor=True)


def legend(axes: Axes) -> None:
    """Above the plot, in one row."""
    drawn = axes.legend(
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


def png(figure: Figure) -> bytes:
    """The picture; the same figure gives the same bytes."""
    buffer = BytesIO()
    # Without metadata the same samples give the same bytes under any version.
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def figure_html(caption: str, picture: bytes) -> str:
    """A PNG with its caption, as part of a page."""
    data = b64encode(picture).decode("ascii")
    title = escape(caption)
    return (
        f'<figure><figcaption>{title}</figcaption><img alt="{title}" src="data:image/png;base64,{data}">'
        "</figure>"
    )
