"""A calibration as a page: the profile, how the twin did on each load, and plots, in one file."""

from collections.abc import Sequence
from html import escape

import numpy as np

from extproc.lab.engine.engine_profile import EngineLimits
from extproc.lab.reports.page import INK, ORANGE, figure, framed, new_figure, png, table, ttft_axis
from extproc.lab.twin.agreement import TOLERANCE, Agreement
from extproc.lab.twin.calibration import FITTED, Fit


def calibration_page(fit: Fit | None, agreements: Sequence[Agreement], limits: EngineLimits) -> bytes:
    """Return the HTML; with a fit, the first load is the one that was fitted to."""
    return framed(
        "extproc calibrate",
        "calibration_page",
        limits=escape(_limits(limits)),
        loads=_loads(agreements, None if fit is None else agreements[0]),
        fit="<p>The profile was given.</p>" if fit is None else _fit(fit),
        plots="".join(map(_plots, agreements)),
        tolerance=f"{TOLERANCE:.0%}",
    )


def _limits(limits: EngineLimits) -> str:
    return (
        f"The server: max_num_seqs {limits.max_num_seqs}, max_num_batched_tokens "
        f"{limits.max_num_batched_tokens}, KV cache {limits.kv_cache_tokens:,} tokens in blocks of "
        f"{limits.block_size}."
    )


def _loads(agreements: Sequence[Agreement], fitted: Agreement | None) -> str:
    rows = [
        (
            f"{each.name}{' (fitted)' if each is fitted else ''}, {title}",
            f"{each.requests:,}",
            f"{each.given_up:,}",
            *figure.texts,
        )
        for each in agreements
        for title, figure in each.shown()
    ]
    return table(("load", "requests", "given up", "server", "twin", "error"), rows)


def _fit(fit: Fit) -> str:
    rows = [(name, f"{getattr(fit.profile, name):.4g}", f"{fit.halves_differ[name]:.0%}") for name in FITTED]
    typical = (
        f"<p>A request's TTFT or decoding time is off by {fit.typical_error:.1%}, half of them by less.</p>"
    )
    return table(("profile", "seconds", "halves differ by"), rows) + typical


def _plots(agreement: Agreement) -> str:
    return figure(f"{agreement.name}: TTFT", _ttft_distributions(agreement)) + figure(
        f"{agreement.name}: TTFT, request by request", _ttft_by_arrival(agreement)
    )


def _ttft_distributions(agreement: Agreement) -> bytes:
    """Draw the share of requests within a TTFT, of server and twin."""
    drawing, axes = new_figure()
    shares = (np.arange(agreement.requests) + 0.5) / agreement.requests
    for label, colour, ttfts_s in _both(agreement):
        axes.step(np.sort(ttfts_s), shares, where="mid", color=colour, linewidth=1.5, label=label)
    ttft_axis(axes, "x", [*agreement.server_ttfts_s, *agreement.twin_ttfts_s])
    axes.set_ylabel("share of requests")
    return png(drawing)


def _ttft_by_arrival(agreement: Agreement) -> bytes:
    """Draw each request's TTFT, of server and twin, in the order of arrivals."""
    drawing, axes = new_figure()
    for label, colour, ttfts_s in _both(agreement):
        axes.scatter(range(len(ttfts_s)), ttfts_s, s=9, color=colour, alpha=0.5, linewidths=0, label=label)
    ttft_axis(axes, "y", [*agreement.server_ttfts_s, *agreement.twin_ttfts_s])
    axes.set_xlabel("request, by arrival")
    return png(drawing)


def _both(agreement: Agreement) -> tuple[tuple[str, str, list[float]], ...]:
    return ("server", INK, agreement.server_ttfts_s), ("twin", ORANGE, agreement.twin_ttfts_s)
