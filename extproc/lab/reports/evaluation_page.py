"""An evaluation as a page: its table and its plots, in one file that needs no other."""

from html import escape

from extproc.lab.evaluation.result import Evaluation, PolicySummary, Spread
from extproc.lab.reports.analysis_tables import table
from extproc.lab.reports.drawing import figure_html
from extproc.lab.reports.evaluation_plots import goodput_by_policy, ttft_by_policy, ttft_distribution
from extproc.lab.reports.frame import framed

_NONE = "-"


def evaluation_page(evaluation: Evaluation) -> bytes:
    """The HTML."""
    return framed(
        "extproc evaluate",
        "evaluation_page",
        fleet=escape(evaluation.fleet),
        workload=escape(evaluation.workload),
        setting=escape(_setting(evaluation)),
        policies=_policies(evaluation),
        backends=_backends(evaluation),
        plots="".join(_plots(evaluation)) or "<p>No request was answered.</p>",
    )


def _setting(evaluation: Evaluation) -> str:
    seeds = len({run.seed for run in evaluation.runs})
    return (
        f"The fleet can answer {evaluation.capacity_per_s:.2f} requests per second. "
        f"Seeds: {seeds}. Routers that do not see each other: {evaluation.routers}. "
        f"Scrapes: every {evaluation.scrape_interval_s:g} s, {evaluation.gauge_delay_s:g} s late. "
        f"Model file: {evaluation.model_version or 'none'}. "
        f"Counted from {evaluation.from_s:g} s on. "
        f"Good: first token at most {evaluation.delay_limit_s:g} s later than on the fastest idle machine."
    )


def _policies(evaluation: Evaluation) -> str:
    heads = (
        "policy",
        "TTFT p50, s",
        "p90, s",
        "p99, s",
        "delay p50, s",
        "p90, s",
        "p99, s",
        "good",
        f"within {evaluation.slo_s:g} s",
        "refused",
        "failed",
    )
    return table((*heads, "fairness", "utilisation"), map(_policy_row, evaluation.policies))


def _policy_row(summary: PolicySummary) -> tuple[str, ...]:
    return (
        summary.policy,
        *(_text(ttft, ".3g") for ttft in (summary.ttft_p50_s, summary.ttft_p90_s, summary.ttft_p99_s)),
        *(_text(each, ".3g") for each in (summary.delay_p50_s, summary.delay_p90_s, summary.delay_p99_s)),
        _text(summary.good, ".1%"),
        *(_text(share, ".1%") for share in (summary.goodput, summary.refused_share, summary.failed_share)),
        _text(summary.fairness, ".2f"),
        _text(summary.utilisation, ".0%"),
    )


def _backends(evaluation: Evaluation) -> str:
    """The backends' parts on the first seed."""
    first_seed = min(run.seed for run in evaluation.runs)
    rows = [
        (
            f"{run.policy}, {backend.name}",
            f"{backend.requests:,}",
            _NONE if backend.mean_ttft_s is None else f"{backend.mean_ttft_s:.3g}",
            f"{backend.utilisation:.0%}",
        )
        for run in evaluation.runs
        if run.seed == first_seed
        for backend in run.backends
    ]
    return table(("policy, backend", "answered", "mean TTFT, s", "utilisation"), rows)


def _plots(evaluation: Evaluation) -> list[str]:
    if all(summary.ttft_p50_s is None for summary in evaluation.policies):
        return []
    return [
        figure_html("TTFT by policy", ttft_by_policy(evaluation)),
        figure_html("How TTFT is distributed", ttft_distribution(evaluation)),
        figure_html("Answered in time, and refused", goodput_by_policy(evaluation)),
    ]


def _text(spread: Spread | None, form: str) -> str:
    if spread is None:
        return _NONE
    median, low, high = (format(value, form) for value in (spread.median, spread.low, spread.high))
    return median if low == high else f"{median}\n{low}-{high}"
