"""The plots of a calibration: TTFT of server and twin on the same load, distributed and one by one."""

import numpy as np

from extproc.lab.reports.drawing import legend, new_figure, plain_ticks, png
from extproc.lab.twin.agreement import Agreement

SERVER, TWIN = "#1c2430", "#c77700"


def ttft_distributions(agreement: Agreement) -> bytes:
    """The share of requests within a TTFT, of both."""
    figure, axes = new_figure()
    shares = (np.arange(agreement.requests) + 0.5) / agreement.requests
    for label, colour, ttfts_s in _both(agreement):
        axes.step(np.sort(ttfts_s), shares, where="mid", color=colour, linewidth=1.5, label=label)
    axes.set_xscale("log")
    plain_ticks(axes, "x", np.array([*agreement.server_ttfts_s, *agreement.twin_ttfts_s]))
    axes.set_xlabel("TTFT, s")
    axes.set_ylabel("share of requests")
    legend(axes)
    return png(figure)


def ttft_by_arrival(agreement: Agreement) -> bytes:
    """Each request's TTFT, of both, in the order of arrivals."""
    figure, axes = new_figure()
    for label, colour, ttfts_s in _both(agreement):
        axes.scatter(range(len(ttfts_s)), ttfts_s, s=9, color=colour, alpha=0.5, linewidths=0, label=label)
    axes.set_yscale("log")
    plain_ticks(axes, "y", np.array([*agreement.server_ttfts_s, *agreement.twin_ttfts_s]))
    axes.set_xlabel("request, by arrival")
    axes.set_ylabel("TTFT, s")
    legend(axes)
    return png(figure)


def _both(agreement: Agreement) -> tuple[tuple[str, str, list[float]], ...]:
    return ("server", SERVER, agreement.server_ttfts_s), ("twin", TWIN, agreement.twin_ttfts_s)
