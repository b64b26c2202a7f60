"""A calibration as a page: the profile, how the twin did on each load, and plots, in one file."""

from collections.abc import Sequence
from html import escape

from extproc.lab.engine.engine_limits import EngineLimits
from extproc.lab.reports.analysis_tables import table
from extproc.lab.reports.calibration_plots import ttft_by_arrival, ttft_distributions
from extproc.lab.reports.drawing import figure_html
from extproc.lab.reports.frame import framed
from extproc.lab.twin.agreement import TOLERANCE, Agreement
from extproc.lab.twin.calibration import FITTED, Fit


def calibration_page(fit: Fit | None, agreements: Sequence[Agreement], limits: EngineLimits) -> bytes:
    """The HTML; with a fit, the first load is the one that was fitted to."""
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
    return figure_html(f"{agreement.name}: TTFT", ttft_distributions(agreement)) + figure_html(
        f"{agreement.name}: TTFT, request by request", ttft_by_arrival(agreement)
    )
