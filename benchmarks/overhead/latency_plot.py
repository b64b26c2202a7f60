"""The distribution of latencies as a picture: which share of the requests took longer than so many ms."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np

_POINTS = 2000


def save_plot(latencies_s: Mapping[str, Sequence[float]], title: str, path: Path) -> None:
    """Draw a line for each arm; both axes are logarithmic, so that the tail is as wide as the rest."""
    figure = matplotlib.figure.Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for arm, found_s in latencies_s.items():
        slower = np.geomspace(1.0, 1.0 / len(found_s), _POINTS)
        axes.plot(np.quantile(found_s, 1.0 - slower) * 1e3, slower, label=arm)
    axes.set(xscale="log", yscale="log", xlabel="latency, ms", ylabel="share that took longer", title=title)
    axes.set_yticks([1.0, 0.1, 0.01, 0.001], ["1", "10 %", "1 % (p99)", "0.1 % (p99.9)"])
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=100)
