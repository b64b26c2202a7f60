"""An evaluation as a page: its table and its plots, in one file that needs no other."""

from html import escape
from itertools import cycle

import numpy as np

from extproc.lab.evaluation.over_seeds import Evaluation, PolicySummary, Spread
from extproc.lab.evaluation.result import QUANTILES
from extproc.lab.reports.page import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    RED,
    cell,
    figure,
    framed,
    mark,
    new_figure,
    png,
    table,
    ttft_axis,
)

_QUANTILE_COLOURS = {"p50": GREEN, "p90": ORANGE, "p99": RED}
_HIGHLIGHTED = {"layered": BLUE, "oracle": INK}
_OTHERS = (RED, ORANGE, GREEN, "#8250df", "#bf3989", "#6e7781", "#1b7c83", "#9a6700", "#57606a")


def evaluation_page(evaluation: Evaluation) -> bytes:
    """Return the HTML."""
    return framed(
        "extproc evaluate",
        "evaluation_page",
        fleet=escape(evaluation.fleet),
        workload=escape(evaluation.workload),
        setting=escape(_setting(evaluation)),
        policies=_policies(evaluation),
        backends=_backends(evaluation),
        plots=_plots(evaluation),
    )


def _setting(evaluation: Evaluation) -> str:
    seeds = len({run.seed for run in evaluation.runs})
    return (
        f"The fleet can answer {evaluation.capacity_per_s:.2f} requests per second. "
        f"Seeds: {seeds}. Routers that do not see each other: {evaluation.routers}. "
        f"Scrapes: every {evaluation.scrape_interval_s:g} s, {evaluation.gauge_delay_s:g} s late. "
        f"Model file: {evaluation.model_version or 'none'}. "
        f"Counted from {evaluation.from_s:g} s on. "
        f"Nuisances: {', '.join(evaluation.nuisances.names()) or 'none'}. "
        f"Good: first token at most {evaluation.delay_limit_s:g} s later than on the fastest idle machine."
    )


def _policies(evaluation: Evaluation) -> str:
    ttfts = ("TTFT p50, s", "p90, s", "p99, s")
    delays = ("delay p50, s", "p90, s", "p99, s", "good")
    shares = (f"within {evaluation.slo_s:g} s", "refused", "failed", "fairness", "utilisation")
    return table(("policy", *ttfts, *delays, *shares), map(_policy_row, evaluation.policies))


def _policy_row(summary: PolicySummary) -> tuple[str, ...]:
    return (
        summary.policy,
        *(_spread(ttft, ".3g") for ttft in (summary.ttft_p50_s, summary.ttft_p90_s, summary.ttft_p99_s)),
        *(_spread(each, ".3g") for each in (summary.delay_p50_s, summary.delay_p90_s, summary.delay_p99_s)),
        _spread(summary.good, ".1%"),
        *(_spread(share, ".1%") for share in (summary.goodput, summary.refused_share, summary.failed_share)),
        _spread(summary.fairness, ".2f"),
        _spread(summary.utilisation, ".0%"),
    )


def _backends(evaluation: Evaluation) -> str:
    """Return the table of the backends' parts on the first seed."""
    first_seed = min(run.seed for run in evaluation.runs)
    rows = [
        (
            f"{run.policy}, {backend.name}",
            f"{backend.requests:,}",
            cell("{:.3g}", backend.mean_ttft_s),
            f"{backend.utilisation:.0%}",
        )
        for run in evaluation.runs
        if run.seed == first_seed
        for backend in run.backends
    ]
    return table(("policy, backend", "answered", "mean TTFT, s", "utilisation"), rows)


def _spread(spread: Spread | None, form: str) -> str:
    if spread is None:
        return "-"
    median, low, high = (format(value, form) for value in (spread.median, spread.low, spread.high))
    return median if low == high else f"{median}\n{low}-{high}"


def _plots(evaluation: Evaluation) -> str:
    if all(summary.ttft_p50_s is None for summary in evaluation.policies):
        return "<p>No request was answered.</p>"
    return (
        figure("TTFT by policy", _ttft_by_policy(evaluation))
        + figure("How TTFT is distributed", _ttft_distribution(evaluation))
        + figure("Answered in time, and refused", _goodput_by_policy(evaluation))
    )


def _ttft_by_policy(evaluation: Evaluation) -> bytes:
    """Draw each policy's p50, p90 and p99: medians over seeds, with the range from best to worst seed."""
    drawing, axes = new_figure()
    policies = [summary for summary in evaluation.policies if summary.ttft_p50_s is not None]
    shown: list[float] = []
    for quantile, colour in _QUANTILE_COLOURS.items():
        spreads: list[Spread] = [getattr(summary, f"ttft_{quantile}_s") for summary in policies]
        low, median, high = np.array([(each.low, each.median, each.high) for each in spreads]).T
        axes.errorbar(
            median,
            range(len(spreads)),
            xerr=[median - low, high - median],
            fmt="o",
            color=colour,
            label=quantile,
            ms=4,
        )
        shown += [*low.tolist(), *high.tolist()]
    mark(axes, evaluation.slo_s)
    axes.set_yticks(range(len(policies)), [summary.policy for summary in policies])
    axes.invert_yaxis()
    ttft_axis(axes, "x", [*shown, evaluation.slo_s])
    return png(drawing)


def _ttft_distribution(evaluation: Evaluation) -> bytes:
    """Draw the share of answered requests within a TTFT, each policy's median over seeds."""
    drawing, axes = new_figure()
    shown = [evaluation.slo_s]
    for summary, colour in zip(evaluation.policies, cycle(_OTHERS), strict=False):
        runs_s = [run.ttft_quantiles_s for run in evaluation.runs if run.policy == summary.policy]
        known_s = [quantiles_s for quantiles_s in runs_s if quantiles_s is not None]
        if not known_s:
            continue
        median_s = np.median(np.array(known_s), axis=0)
        axes.plot(
            median_s,
            QUANTILES,
            color=_HIGHLIGHTED.get(summary.policy, colour),
            linewidth=2 if summary.policy in _HIGHLIGHTED else 1,
            label=summary.policy,
        )
        shown += [float(median_s[0]), float(median_s[-1])]
    mark(axes, evaluation.slo_s)
    ttft_axis(axes, "x", shown)
    axes.set_ylabel("share of answered requests")
    return png(drawing)


def _goodput_by_policy(evaluation: Evaluation) -> bytes:
    """Draw the shares of all requests that were answered in time, and refused."""
    drawing, axes = new_figure()
    rows = range(len(evaluation.policies))
    goodput = [summary.goodput.median for summary in evaluation.policies]
    refused = [-summary.refused_share.median for summary in evaluation.policies]
    axes.barh(rows, goodput, color=GREEN, label=f"within {evaluation.slo_s:g} s")
    axes.barh(rows, refused, color=RED, label="refused")
    axes.set_yticks(rows, [summary.policy for summary in evaluation.policies])
    axes.invert_yaxis()
    axes.set_xlabel("share of all requests")
    return png(drawing)
