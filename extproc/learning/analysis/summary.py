"""The analysis in sentences, the most important first; they also say what the samples do not support."""

from collections.abc import Iterator

from extproc.fleet.zone import Zone
from extproc.learning.analysis.congestion import Congestion, WaitLocation
from extproc.learning.analysis.correlation import Correlation, Unstated
from extproc.learning.analysis.findings import Analysis
from extproc.learning.analysis.knee import Knee
from extproc.learning.analysis.kv_usage import HIGH_USAGE, KvUsage
from extproc.learning.analysis.proposal import MOST_LISTED, printable

_STRONG, _WEAK = 0.5, 0.3
"""Borrowed: a large and a medium effect in Cohen, "Statistical Power Analysis" (1988)."""


def summary(analysis: Analysis) -> list[str]:
    """Return the findings, a sentence or two each."""
    if not analysis.count:
        return [f"Of {analysis.rows} samples none can be used{_dropped(analysis)}: there is nothing to say."]
    return [
        _zones(analysis),
        *(sentence for zone in Zone if (sentence := _correlations(analysis, zone))),
        *_first(_knee(knee) for knee in analysis.knees),
        *_first(congestion_sentence(each, analysis.bounds.low_s) for each in analysis.congestion),
        kv_sentence(analysis.kv_usage),
    ]


def congestion_sentence(congestion: Congestion, low_s: float) -> str:
    """Say where the requests of one backend wait."""
    name = printable(congestion.backend)
    if congestion.place is WaitLocation.NOT_SATURATED or congestion.nothing_waiting_share_saturated is None:
        return (
            f"{name}: too few saturated requests to say where they wait "
            f"({congestion.count} took {low_s:g} s or more)."
        )
    empty_share = congestion.nothing_waiting_share_saturated
    sentence = (
        f"{name}: saturated requests wait {congestion.place}: {empty_share:.0%} of them found nothing "
        "waiting in the engine"
    )
    if congestion.is_running_pinned:
        sentence += (
            f", and {congestion.at_top_share:.0%} found about {congestion.running_top:.0f} requests running: "
            "no more are let in"
        )
    return f"{sentence}."


def kv_sentence(kv_usage: KvUsage) -> str:
    """Say what a nearly full KV cache does."""
    if kv_usage.ttft_ratio is None or kv_usage.low is None or kv_usage.high is None:
        return f"KV usage: no statement: {kv_usage.unstated}."
    if kv_usage.low > 1:
        effect = "is longer"
    else:
        effect = "is shorter" if kv_usage.high < 1 else "is no different for sure"
    return (
        f"From a KV usage of {HIGH_USAGE:.0%} on, TTFT {effect} than at similar load below: "
        f"{kv_usage.ttft_ratio:.2f} times ({kv_usage.low:.2f} to {kv_usage.high:.2f})."
    )


def _zones(analysis: Analysis) -> str:
    pooled = analysis.zones[0]
    shares = ", ".join(f"{zone.share:.0%} {zone.zone}" for zone in pooled.zones)
    present = sum(zone.count > 0 for zone in pooled.zones)
    low_s, saturated_s = analysis.bounds.low_s, analysis.bounds.saturated_s
    return (
        f"{present} of 3 zones are there: {shares} (TTFT below {low_s:g} s, to {saturated_s:g} s, beyond), "
        f"from {analysis.count} usable samples of {analysis.rows}{_dropped(analysis)}."
    )


def _dropped(analysis: Analysis) -> str:
    counts = [f"{count} {reason.replace('_', ' ')}" for reason, count in analysis.dropped.items() if count]
    return f" (dropped: {', '.join(counts)})" if counts else ""


def _correlations(analysis: Analysis, zone: Zone) -> str | None:
    own = [each for each in analysis.correlations if each.zone is zone]
    if own[0].unstated is Unstated.TOO_FEW:
        return f"The {zone} zone: {own[0].count} samples, too few for correlations." if own[0].count else None
    found: dict[str, list[str]] = {}
    for each in own:
        found.setdefault(_verdict(each), []).append(_named(each))
    clauses = "; ".join(f"{verdict} {_listed(names)}" for verdict, names in found.items())
    return f"In the {zone} zone, TTFT {clauses}."


def _verdict(correlation: Correlation) -> str:
    if correlation.pearson is None:
        return "cannot be compared with"
    r = correlation.pearson.r
    if abs(r) >= _STRONG:
        return "follows" if r > 0 else "falls with"
    return "goes somewhat with" if abs(r) >= _WEAK else "hardly depends on"


def _named(correlation: Correlation) -> str:
    pearson = correlation.pearson
    return f"{correlation.feature} ({f'R = {pearson.r:.2f}' if pearson else 'constant'})"


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _knee(knee: Knee) -> str:
    name = "All backends together" if knee.backend is None else printable(knee.backend)
    if knee.load is None:
        return f"{name}: no knee of TTFT over load: {knee.unstated}."
    return (
        f"{name}: the knee is at a load of {knee.load:.1f} ({knee.low:.1f} to {knee.high:.1f}), "
        f"where TTFT is about {knee.ttft_at_knee_s:.2g} s; beyond it each request more costs "
        f"{knee.slope_after_s:.2g} s, before it {knee.slope_before_s:.2g} s."
    )


def _first(sentences: Iterator[str]) -> list[str]:
    """Return the first few; the others of a large fleet are in the tables."""
    every = list(sentences)
    more = len(every) - MOST_LISTED
    return every if more <= 0 else [*every[:MOST_LISTED], f"(and {more} more backends, see below)"]
