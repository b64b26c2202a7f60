"""The plots of an evaluation: TTFT by policy, its distribution, what was within the objective and refused."""

from collections.abc import Sequence

import numpy as np

from extproc.lab.evaluation.result import QUANTILES, Evaluation, PolicyRun, PolicySummary, Spread
from extproc.lab.reports.drawing import FAINT, legend, new_figure, plain_ticks, png

_QUANTILE_COLOURS = {"p50": "#1a7f4b", "p90": "#c77700", "p99": "#c4262e"}
_HIGHLIGHTED = {"layered": "#3b63c4", "oracle": "#1c2430"}
_OTHERS = ("#c4262e", "#c77700", "#1a7f4b", "#8250df", "#bf3989", "#6e7781", "#1b7c83", "#9a6700", "#57606a")


def ttft_by_policy(evaluation: Evaluation) -> bytes:
    """p50, p90 and p99 of each policy, medians over seeds with the range from the best seed to the worst."""
    figure, axes = new_figure()
    policies = [summary for summary in evaluation.policies if summary.ttft_p50_s is not None]
    shown: list[float] = []
    for quantile, colour in _QUANTILE_COLOURS.items():
        spreads = [_quantile(summary, quantile) for summary in policies]
        places = np.arange(len(spreads))
        medians = np.array([spread.median for spread in spreads])
        low, high = (np.array([getattr(spread, end) for spread in spreads]) for end in ("low", "high"))
        axes.errorbar(
            medians, places, xerr=[medians - low, high - medians], fmt="o", color=colour, label=quantile, ms=4
        )
        shown += [*low.tolist(), *high.tolist()]
    axes.axvline(evaluation.slo_s, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(policies)), [summary.policy for summary in policies])
    axes.invert_yaxis()
    axes.set_xscale("log")
    plain_ticks(axes, "x", np.array([*shown, evaluation.slo_s]))
    axes.set_xlabel("TTFT, s")
    legend(axes)
    return png(figure)


def ttft_distribution(evaluation: Evaluation) -> bytes:
    """The share of answered requests within a TTFT, each policy's median over seeds."""
    figure, axes = new_figure()
    shown = [evaluation.slo_s]
    for number, summary in enumerate(evaluation.policies):
        quantiles_s = _median_quantiles_s(evaluation.runs, summary.policy)
        if quantiles_s is None:
            continue
        is_highlighted = summary.policy in _HIGHLIGHTED
        axes.plot(
            quantiles_s,
            QUANTILES,
            color=_HIGHLIGHTED.get(summary.policy, _OTHERS[number % len(_OTHERS)]),
            linewidth=2 if is_highlighted else 1,
            label=summary.policy,
        )
        shown += [float(quantiles_s[0]), float(quantiles_s[-1])]
    axes.axvline(evaluation.slo_s, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    plain_ticks(axes, "x", np.array(shown))
    axes.set_xlabel("TTFT, s")
    axes.set_ylabel("share of answered requests")
    legend(axes)
    return png(figure)


def goodput_by_policy(evaluation: Evaluation) -> bytes:
    """The shares of all requests that were answered in time, and refused."""
    figure, axes = new_figure()
    places = np.arange(len(evaluation.policies))
    goodput = np.array([summary.goodput.median for summary in evaluation.policies])
    refused = np.array([summary.refused_share.median for summary in evaluation.policies])
    axes.barh(places, goodput, color="#1a7f4b", label=f"within {evaluation.slo_s:g} s")
    axes.barh(places, -refused, color="#c4262e", label="refused")
    axes.set_yticks(places, [summary.policy for summary in evaluation.policies])
    axes.invert_yaxis()
    axes.set_xlabel("share of all requests")
    legend(axes)
    return png(figure)


def _quantile(summary: PolicySummary, name: str) -> Spread:
    spread: Spread = getattr(summary, f"ttft_{name}_s")
    return spread


def _median_quantiles_s(
    runs: Sequence[PolicyRun], policy: str
) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    known = [
        run.ttft_quantiles_s for run in runs if run.policy == policy and run.ttft_quantiles_s is not None
    ]
    return np.median(np.array(known), axis=0) if known else None
