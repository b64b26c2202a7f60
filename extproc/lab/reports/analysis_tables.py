"""The tables of the report. Every text is escaped: names of backends come from whoever wrote the samples."""

from collections.abc import Iterable, Sequence
from html import escape

from extproc.fleet.bounds import MAX_BACKEND_NAME
from extproc.fleet.zone import Zone
from extproc.learning.analysis.correlation import Coefficient, Correlation
from extproc.learning.analysis.findings import Analysis
from extproc.learning.features import FEATURES

_NONE = "-"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table; the first column is text, the others are numbers."""
    head = "".join(f"<th>{escape(text)}" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}" for text in row) for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}<tbody>{body}</table></div>'


def zone_table(analysis: Analysis) -> str:
    """Counts, shares and quantiles: all zones of all backends, then each backend's shares."""
    pooled = analysis.zones[0]
    rows = [
        (str(zone.zone), f"{zone.count:,}", f"{zone.share:.1%}", *_quantiles(zone.ttft))
        for zone in pooled.zones
    ]
    rows.append(("all", f"{pooled.count:,}", "100 %" if pooled.count else _NONE, *_quantiles(pooled.ttft)))
    overall = table(("zone", "requests", "share", *_QUANTILES), rows)
    by_backend = table(
        ("backend", "requests", *(str(zone) for zone in Zone), *_QUANTILES),
        (
            (
                _name(each.backend),
                f"{each.count:,}",
                *(f"{zone.share:.1%}" for zone in each.zones),
                *_quantiles(each.ttft),
            )
            for each in analysis.zones[1:]
        ),
    )
    return overall + by_backend


def correlation_tables(analysis: Analysis) -> str:
    """One table for each zone."""
    parts = []
    for zone in Zone:
        own = [each for each in analysis.correlations if each.zone is zone]
        rows = [_correlation_row(each) for each in sorted(own, key=lambda each: FEATURES.index(each.feature))]
        parts.append(f'<h3 class="{zone}">{zone} zone, {own[0].count:,} requests</h3>')
        parts.append(table(("TTFT with", "Pearson R", "95 %", "p", "Spearman", "95 %", "p"), rows))
    return "".join(parts)


def knee_table(analysis: Analysis) -> str:
    """The knee of each backend, or why it has none."""
    heads = ("backend", "requests", "knee (load)", "95 %", "TTFT there", "before, s/request")
    limit = f"load at {analysis.limit_s:g} s"
    return table(
        (*heads, "beyond, s/request", limit, ""),
        (
            (
                _name(knee.backend),
                f"{knee.count:,}",
                _number(knee.load, 1),
                _NONE if knee.load is None else f"{knee.low:.1f} to {knee.high:.1f}",
                _NONE if knee.ttft_at_knee_s is None else f"{knee.ttft_at_knee_s:.2g} s",
                _number(knee.slope_before_s, 3),
                _number(knee.slope_after_s, 3),
                _number(knee.load_at_limit, 1),
                knee.unstated or "",
            )
            for knee in analysis.knees
        ),
    )


def congestion_table(analysis: Analysis) -> str:
    """Where requests wait, by backend."""
    heads = ("backend", "out of low zone", "wait", "none waiting, medium", "none waiting, saturated")
    return table(
        (*heads, "running when saturated", "at it", "of queue in num_waiting"),
        (
            (
                _name(each.backend),
                f"{each.count:,}",
                str(each.place),
                _share(each.nothing_waiting_share_medium),
                _share(each.nothing_waiting_share_saturated),
                _number(each.running_top, 0),
                _share(each.at_top_share),
                _share(each.queue_seen_share),
            )
            for each in analysis.congestion
        ),
    )


def dropped_table(analysis: Analysis) -> str:
    """What was read, used, and not used."""
    rows = [(reason.replace("_", " "), f"{count:,}") for reason, count in analysis.dropped.items()]
    return table(
        ("samples", "rows"), [("read", f"{analysis.rows:,}"), ("used", f"{analysis.count:,}"), *rows]
    )


_QUANTILES = ("p5, s", "p25, s", "p50, s", "p75, s", "p95, s", "p99, s")


def _quantiles(ttft: object) -> tuple[str, ...]:
    if ttft is None:
        return (_NONE,) * len(_QUANTILES)
    names = ("p5_s", "p25_s", "p50_s", "p75_s", "p95_s", "p99_s")
    return tuple(f"{getattr(ttft, name):.3g}" for name in names)


def _correlation_row(correlation: Correlation) -> tuple[str, ...]:
    if correlation.pearson is None or correlation.spearman is None:
        return (correlation.feature, correlation.unstated or "", *[""] * 5)
    return (correlation.feature, *_coefficient(correlation.pearson), *_coefficient(correlation.spearman))


def _coefficient(coefficient: Coefficient) -> tuple[str, str, str]:
    p_value = coefficient.p_value
    shown = "< 0.0001" if p_value < 1e-4 else f"{p_value:.2g}"
    return f"{coefficient.r:.2f}", f"{coefficient.low:.2f} to {coefficient.high:.2f}", shown


def _name(backend: str | None) -> str:
    if backend is None:
        return "all together"
    return backend if len(backend) <= MAX_BACKEND_NAME else f"{backend[:MAX_BACKEND_NAME]}…"


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _share(value: float | None) -> str:
    return _NONE if value is None else f"{value:.0%}"
