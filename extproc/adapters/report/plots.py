"""The plots of the report, as PNG: TTFT on a logarithmic axis, zones coloured.

Figures are made without pyplot, which would keep them, and whose state is global.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from extproc.fleet.zone import Zone
from extproc.learning.analysis.knee import Knee
from extproc.learning.analysis.kv_usage import HIGH_USAGE
from extproc.learning.analysis.zones import zone_masks
from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES
from extproc.learning.zone_bounds import ZoneBounds

ZONE_COLOURS: Mapping[Zone, str] = {Zone.LOW: "#1a7f4b", Zone.MEDIUM: "#c77700", Zone.SATURATED: "#c4262e"}

_DPI = 150
_INK, _FAINT, _KNEE = "#1c2430", "#66717f", "#3b63c4"
_MOST_KNEES = 6
_TTFT_LABEL = "TTFT, s"


def ttft_histogram(observations: Observations, bounds: ZoneBounds) -> bytes:
    """How often each TTFT was met, in steps that are equal on the logarithmic axis."""
    figure, axes = _figure()
    ttft_s = observations.ttft_s
    edges = np.geomspace(ttft_s.min() * 0.95, ttft_s.max() * 1.05, 61)
    for zone, mask in zone_masks(ttft_s, bounds).items():
        axes.hist(ttft_s[mask], edges.tolist(), color=ZONE_COLOURS[zone], label=f"{zone} ({mask.sum():,})")
    for bound_s in (bounds.low_s, bounds.saturated_s):
        axes.axvline(bound_s, color=_FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    _plain_ticks(axes, "x", ttft_s)
    axes.set_xlabel(_TTFT_LABEL)
    axes.set_ylabel("requests")
    _legend(axes)
    return _png(figure)


def ttft_over(
    feature: str, label: str, observations: Observations, bounds: ZoneBounds, knees: Sequence[Knee] = ()
) -> bytes:
    """TTFT against one feature; the knees of load are marked, each with its interval as a band."""
    figure, axes = _figure()
    _points(axes, observations.features[:, FEATURES.index(feature)], observations, bounds)
    found = [knee for knee in knees if knee.load is not None and knee.low is not None]
    for place, knee in enumerate(found[:_MOST_KNEES]):
        axes.axvspan(knee.low or 0, knee.high or 0, color=_KNEE, alpha=0.15, linewidth=0)
        axes.axvline(
            knee.load or 0,
            color=_KNEE,
            linewidth=1.5,
            label=None if place else "knee, 95 % interval",
        )
    axes.set_xlabel(label)
    if feature == "kv_cache_fraction":
        axes.axvline(HIGH_USAGE, color=_FAINT, linewidth=1, linestyle=(0, (4, 3)), label="0.9")
    _legend(axes)
    return _png(figure)


def waiting_over_ttft(observations: Observations, bounds: ZoneBounds) -> bytes:
    """What waited in the engine when requests came that then took so long."""
    figure, axes = _figure()
    waiting = observations.features[:, FEATURES.index("num_waiting")]
    for zone, mask in zone_masks(observations.ttft_s, bounds).items():
        _dots(axes, observations.ttft_s[mask], waiting[mask], zone)
    axes.set_xscale("log")
    _plain_ticks(axes, "x", observations.ttft_s)
    axes.set_ylim(bottom=-0.04 * max(waiting.max(), 1), top=1.05 * max(waiting.max(), 1))
    axes.set_xlabel(_TTFT_LABEL)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("num_waiting at arrival")
    _legend(axes)
    return _png(figure)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.8, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(color="#e2e6eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, labelsize=9, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)
    return figure, axes


def _points(
    axes: Axes, values: npt.NDArray[np.float64], observations: Observations, bounds: ZoneBounds
) -> None:
    for zone, mask in zone_masks(observations.ttft_s, bounds).items():
        _dots(axes, values[mask], observations.ttft_s[mask], zone)
    axes.set_yscale("log")
    _plain_ticks(axes, "y", observations.ttft_s)
    axes.set_ylabel(_TTFT_LABEL)


def _dots(axes: Axes, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], zone: Zone) -> None:
    axes.scatter(x, y, s=9, color=ZONE_COLOURS[zone], alpha=0.4, linewidths=0, label=str(zone))


def _plain_ticks(axes: Axes, axis: str, ttft_s: npt.NDArray[np.float64]) -> None:
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


def _legend(axes: Axes) -> None:
    legend = axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=4,
        fontsize=9,
        frameon=False,
        handletextpad=0.3,
        markerscale=2,
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    # Without metadata the same samples give the same bytes under any version.
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
