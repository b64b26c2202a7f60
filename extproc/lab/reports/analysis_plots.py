"""The plots of the report, as PNG: TTFT on a logarithmic axis, zones coloured."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from extproc.fleet.zone import Zone
from extproc.lab.reports.drawing import FAINT, legend, new_figure, plain_ticks, png
from extproc.learning.analysis.knee import Knee
from extproc.learning.analysis.kv_usage import HIGH_USAGE
from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES
from extproc.learning.zone_bounds import ZoneBounds

ZONE_COLOURS: Mapping[Zone, str] = {Zone.LOW: "#1a7f4b", Zone.MEDIUM: "#c77700", Zone.SATURATED: "#c4262e"}

_KNEE = "#3b63c4"
_MOST_KNEES = 6
_TTFT_LABEL = "TTFT, s"


def ttft_histogram(observations: Observations, bounds: ZoneBounds) -> bytes:
    """How often each TTFT was met, in steps that are equal on the logarithmic axis."""
    figure, axes = new_figure()
    ttft_s = observations.ttft_s
    edges = np.geomspace(ttft_s.min() * 0.95, ttft_s.max() * 1.05, 61)
    for zone, mask in bounds.masks(ttft_s).items():
        axes.hist(ttft_s[mask], edges.tolist(), color=ZONE_COLOURS[zone], label=f"{zone} ({mask.sum():,})")
    for bound_s in (bounds.low_s, bounds.saturated_s):
        axes.axvline(bound_s, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    plain_ticks(axes, "x", ttft_s)
    axes.set_xlabel(_TTFT_LABEL)
    axes.set_ylabel("requests")
    legend(axes)
    return png(figure)


def ttft_over(
    feature: str, label: str, observations: Observations, bounds: ZoneBounds, knees: Sequence[Knee] = ()
) -> bytes:
    """TTFT against one feature; the knees of load are marked, each with its interval as a band."""
    figure, axes = new_figure()
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
        axes.axvline(HIGH_USAGE, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="0.9")
    legend(axes)
    return png(figure)


def waiting_over_ttft(observations: Observations, bounds: ZoneBounds) -> bytes:
    """What waited in the engine when requests came that then took so long."""
    figure, axes = new_figure()
    waiting = observations.features[:, FEATURES.index("num_waiting")]
    for zone, mask in bounds.masks(observations.ttft_s).items():
        _dots(axes, observations.ttft_s[mask], waiting[mask], zone)
    axes.set_xscale("log")
    plain_ticks(axes, "x", observations.ttft_s)
    axes.set_ylim(bottom=-0.04 * max(waiting.max(), 1), top=1.05 * max(waiting.max(), 1))
    axes.set_xlabel(_TTFT_LABEL)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("num_waiting at arrival")
    legend(axes)
    return png(figure)


def _points(
    axes: Axes, values: npt.NDArray[np.float64], observations: Observations, bounds: ZoneBounds
) -> None:
    for zone, mask in bounds.masks(observations.ttft_s).items():
        _dots(axes, values[mask], observations.ttft_s[mask], zone)
    axes.set_yscale("log")
    plain_ticks(axes, "y", observations.ttft_s)
    axes.set_ylabel(_TTFT_LABEL)


def _dots(axes: Axes, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], zone: Zone) -> None:
    axes.scatter(x, y, s=9, color=ZONE_COLOURS[zone], alpha=0.4, linewidths=0, label=str(zone))
