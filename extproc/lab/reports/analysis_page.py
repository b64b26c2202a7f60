"""The page of an analysis: its tables, and plots of its samples, in one file that needs no other."""

from dataclasses import astuple
from datetime import UTC, datetime
from html import escape

import numpy as np

from extproc.fleet.zone import Zone
from extproc.lab.reports.analysis_plots import thinned, ttft_histogram, ttft_over, waiting_over_ttft
from extproc.lab.reports.page import cell, figure, framed, table
from extproc.learning.analysis.correlation import Coefficient, Correlation
from extproc.learning.analysis.findings import Analysis, TtftQuantiles
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
        return f"The load at which TTFT passes {analysis.limit_s:g} s cannot be estimated."
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


_QUANTILES = ("p5, s", "p25, s", "p50, s", "p75, s", "p95, s", "p99, s")
ALL_BACKENDS = "all together"


def zone_table(analysis: Analysis) -> str:
    """Return counts, shares and quantiles: all zones of all backends, then each backend's shares."""
    pooled, *by_backend = analysis.zones
    rows = [
        (str(zone.zone), f"{zone.count:,}", f"{zone.share:.1%}", *_quantiles(zone.ttft))
        for zone in pooled.zones
    ]
    whole = "100 %" if pooled.count else "-"
    rows.append(("all", f"{pooled.count:,}", whole, *_quantiles(pooled.ttft)))
    backend_rows = [
        (
            each.backend or ALL_BACKENDS,
            f"{each.count:,}",
            *(f"{zone.share:.1%}" for zone in each.zones),
            *_quantiles(each.ttft),
        )
        for each in by_backend
    ]
    return table(("zone", "requests", "share", *_QUANTILES), rows) + table(
        ("backend", "requests", *map(str, Zone), *_QUANTILES), backend_rows
    )


def correlation_tables(analysis: Analysis) -> str:
    """Return one table for each zone."""
    parts = []
    for zone in Zone:
        own = [each for each in analysis.correlations if each.zone is zone]
        heads = ("TTFT with", "Pearson R", "95 %", "p", "Spearman", "95 %", "p")
        parts.append(f'<h3 class="{zone}">{zone} zone, {own[0].count:,} requests</h3>')
        parts.append(table(heads, map(_correlation_row, own)))
    return "".join(parts)


def knee_table(analysis: Analysis) -> str:
    """Return the knee of each backend, or why it has none."""
    heads = ("backend", "requests", "knee (load)", "95 %", "TTFT there", "before, s/request")
    rows = [
        (
            knee.backend or ALL_BACKENDS,
            f"{knee.count:,}",
            cell("{:.1f}", knee.load),
            cell("{:.1f} to {:.1f}", knee.low, knee.high),
            cell("{:.2g} s", knee.ttft_at_knee_s),
            cell("{:.3f}", knee.slope_before_s),
            cell("{:.3f}", knee.slope_after_s),
            cell("{:.1f}", knee.load_at_limit),
            knee.unstated or "",
        )
        for knee in analysis.knees
    ]
    return table((*heads, "beyond, s/request", f"load at {analysis.limit_s:g} s", ""), rows)


def congestion_table(analysis: Analysis) -> str:
    """Return where requests wait, by backend."""
    heads = ("backend", "out of low zone", "wait", "none waiting, medium", "none waiting, saturated")
    rows = [
        (
            each.backend,
            f"{each.count:,}",
            str(each.place),
            cell("{:.0%}", each.nothing_waiting_share_medium),
            cell("{:.0%}", each.nothing_waiting_share_saturated),
            cell("{:.0f}", each.running_top),
            cell("{:.0%}", each.at_top_share),
            cell("{:.0%}", each.queue_seen_share),
        )
        for each in analysis.congestion
    ]
    return table((*heads, "running when saturated", "at it", "of queue in num_waiting"), rows)


def dropped_table(analysis: Analysis) -> str:
    """Return how many samples were read, used, and dropped for which reason."""
    counts = [("read", analysis.rows), ("used", analysis.count), *analysis.dropped.items()]
    return table(("samples", "rows"), [(what.replace("_", " "), f"{count:,}") for what, count in counts])


def _quantiles(ttft: TtftQuantiles | None) -> tuple[str, ...]:
    return tuple(cell("{:.3g}", value) for value in (astuple(ttft) if ttft else [None] * len(_QUANTILES)))


def _correlation_row(correlation: Correlation) -> tuple[str, ...]:
    if correlation.pearson is None or correlation.spearman is None:
        return (correlation.feature, correlation.unstated or "", *[""] * 5)
    return (correlation.feature, *_coefficient(correlation.pearson), *_coefficient(correlation.spearman))


def _coefficient(coefficient: Coefficient) -> tuple[str, str, str]:
    p_value = "< 0.0001" if coefficient.p_value < 1e-4 else f"{coefficient.p_value:.2g}"
    return f"{coefficient.r:.2f}", f"{coefficient.low:.2f} to {coefficient.high:.2f}", p_value
