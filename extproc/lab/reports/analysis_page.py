"""The page of an analysis, with plots of its samples, in one file that needs no other."""

from datetime import UTC, datetime
from html import escape

import numpy as np

from extproc.lab.reports.analysis_plots import thinned, ttft_histogram, ttft_over, waiting_over_ttft
from extproc.lab.reports.analysis_tables import (
    ALL_BACKENDS,
    congestion_table,
    correlation_tables,
    dropped_table,
    knee_table,
    zone_table,
)
from extproc.lab.reports.page import figure, framed
from extproc.learning.analysis.findings import Analysis
from extproc.learning.analysis.summary import kv_sentence, summary
from extproc.learning.dataset import Observations


def report_page(
    analysis: Analysis, observations: Observations, origin: str, rng: np.random.Generator
) -> bytes:
    """Return the HTML of the report; `origin` names the sample store, `rng` draws the points of the plots."""
    points = thinned(observations, analysis.bounds, rng)
    return framed(
        "extproc analyze",
        "report_page",
        origin=escape(_origin(analysis, origin)),
        summary="".join(f"<li>{escape(sentence)}</li>" for sentence in summary(analysis)),
        proposal=escape(analysis.yaml),
        limits=escape(_limits(analysis)),
        zones=zone_table(analysis) + _unlisted(analysis),
        plots=_plots(analysis, observations, points),
        thinned=_thinned(len(points), len(observations)),
        correlations=correlation_tables(analysis),
        knees=knee_table(analysis),
        congestion=congestion_table(analysis),
        kv=escape(kv_sentence(analysis.kv_usage)),
        dropped=dropped_table(analysis),
    )


def _origin(analysis: Analysis, origin: str) -> str:
    if analysis.first_at_s is None or analysis.last_at_s is None:
        return f"{origin}: no usable samples"
    first, last = (
        f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S}"
        for at_s in (analysis.first_at_s, analysis.last_at_s)
    )
    noun = "backend" if analysis.backends == 1 else "backends"
    return f"{origin}: {analysis.count:,} usable samples of {analysis.backends} {noun}, {first} to {last} UTC"


def _limits(analysis: Analysis) -> str:
    """Say where the expected TTFT passes the guard's limit: for information, the guard finds it by itself."""
    found = [
        f"{knee.backend or ALL_BACKENDS}: {knee.load_at_limit:.0f}"
        for knee in analysis.knees
        if knee.load_at_limit is not None
    ]
    if not found:
        return f"The load at which TTFT passes {analysis.limit_s:g} s cannot be told."
    return f"TTFT is expected to pass {analysis.limit_s:g} s at a load of: {', '.join(found)}."


def _unlisted(analysis: Analysis) -> str:
    if analysis.listed == analysis.backends:
        return ""
    return (
        f'<p class="faint">The {analysis.listed} of {analysis.backends} backends with the most samples.</p>'
    )


def _thinned(shown: int, count: int) -> str:
    if shown == count:
        return ""
    return (
        f"Of {count:,} requests {shown:,} are drawn as points, at random, an equal share of each zone; "
        "the histogram counts all."
    )


def _plots(analysis: Analysis, observations: Observations, points: Observations) -> str:
    if not len(observations):
        return "<p>There is nothing to plot.</p>"
    bounds, knees = analysis.bounds, [knee for knee in analysis.knees if knee.backend is not None]
    kv_label = "share of the KV cache in use at arrival"
    return "".join(
        [
            figure("How long TTFT was", ttft_histogram(observations, bounds)),
            figure(
                "TTFT against load", ttft_over("load", "requests in flight at arrival", points, bounds, knees)
            ),
            figure(
                "TTFT against running requests",
                ttft_over("num_running", "num_running at arrival", points, bounds),
            ),
            figure("Waiting in the engine against TTFT", waiting_over_ttft(points, bounds)),
            figure("TTFT against KV usage", ttft_over("kv_cache_fraction", kv_label, points, bounds)),
        ]
    )
