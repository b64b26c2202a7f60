"""The plots of an analysis, as PNG: TTFT on a logarithmic axis, zones coloured."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from extproc.fleet.zone import Zone
from extproc.lab.reports.page import BLUE, GREEN, ORANGE, RED, mark, new_figure, png, ttft_axis
from extproc.learning.analysis.knee import Knee
from extproc.learning.analysis.kv_usage import HIGH_USAGE
from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES, ZoneBounds

ZONE_COLOURS: Mapping[Zone, str] = {Zone.LOW: GREEN, Zone.MEDIUM: ORANGE, Zone.SATURATED: RED}

MAX_POINTS = 5_000
_MOST_KNEES = 6


def thinned(
    observations: Observations, bounds: ZoneBounds, rng: np.random.Generator, most: int = MAX_POINTS
) -> Observations:
    """Return at most `most` observations to plot: an equal share of each zone, as far as it has as many."""
    if len(observations) <= most:
        return observations
    members = [np.flatnonzero(mask) for mask in bounds.masks(observations.ttft_s).values()]
    kept: list[npt.NDArray[np.intp]] = []
    left = most
    for zones_left, rows in zip((3, 2, 1), sorted(members, key=len), strict=True):
        count = min(len(rows), left // zones_left)
        kept.append(rng.choice(rows, count, replace=False))
        left -= count
    return observations.take(np.sort(np.concatenate(kept)))


def ttft_histogram(observations: Observations, bounds: ZoneBounds) -> bytes:
    """Draw how often each TTFT occurred, in steps that are equal on the logarithmic axis."""
    figure, axes = new_figure()
    ttft_s = observations.ttft_s
    edges = np.geomspace(ttft_s.min() * 0.95, ttft_s.max() * 1.05, 61)
    for zone, mask in bounds.masks(ttft_s).items():
        axes.hist(ttft_s[mask], edges.tolist(), color=ZONE_COLOURS[zone], label=f"{zone} ({mask.sum():,})")
    mark(axes, bounds.low_s)
    mark(axes, bounds.saturated_s)
    ttft_axis(axes, "x", ttft_s)
    axes.set_ylabel("requests")
    return png(figure)


def ttft_over(
    feature: str, label: str, observations: Observations, bounds: ZoneBounds, knees: Sequence[Knee] = ()
) -> bytes:
    """Draw TTFT against one feature, and the knees of load, each with its interval as a band."""
    figure, axes = new_figure()
    _dots(axes, observations.features[:, FEATURES.index(feature)], observations.ttft_s, observations, bounds)
    ttft_axis(axes, "y", observations.ttft_s)
    found = [knee for knee in knees if knee.load is not None and knee.low is not None]
    for number, knee in enumerate(found[:_MOST_KNEES]):
        axes.axvspan(knee.low or 0, knee.high or 0, color=BLUE, alpha=0.15, linewidth=0)
        axes.axvline(
            knee.load or 0, color=BLUE, linewidth=1.5, label=None if number else "knee, 95 % interval"
        )
    axes.set_xlabel(label)
    if feature == "kv_cache_fraction":
        mark(axes, HIGH_USAGE, f"{HIGH_USAGE:g}")
    return png(figure)


def waiting_over_ttft(observations: Observations, bounds: ZoneBounds) -> bytes:
    """Draw how many requests waited in the engine when a request came, against its TTFT."""
    figure, axes = new_figure()
    waiting = observations.features[:, FEATURES.index("num_waiting")]
    _dots(axes, observations.ttft_s, waiting, observations, bounds)
    ttft_axis(axes, "x", observations.ttft_s)
    axes.set_ylim(bottom=-0.04 * max(waiting.max(), 1), top=1.05 * max(waiting.max(), 1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("num_waiting at arrival")
    return png(figure)


def _dots(
    axes: Axes,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    observations: Observations,
    bounds: ZoneBounds,
) -> None:
    for zone, mask in bounds.masks(observations.ttft_s).items():
        axes.scatter(
            x[mask], y[mask], s=9, color=ZONE_COLOURS[zone], alpha=0.4, linewidths=0, label=str(zone)
        )
