"""The results of several seeds together: the middle of each figure, and how far it spreads."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from extproc.lab.evaluation.result import PolicyRun, layer_shares
from extproc.lab.evaluation.surroundings import Surroundings

Judged = TypeVar("Judged")


@dataclass(frozen=True, slots=True)
class Spread:
    """The median over seeds, and the smallest and largest value."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PolicySummary:
    """One policy over all seeds; times are None where nothing was answered on any of them.

    `layer_shares` are of the decisions of all seeds together.
    """

    policy: str
    ttft_p50_s: Spread | None
    ttft_p90_s: Spread | None
    ttft_p99_s: Spread | None
    delay_p50_s: Spread | None
    delay_p90_s: Spread | None
    delay_p99_s: Spread | None
    goodput: Spread
    good: Spread
    refused_share: Spread
    failed_share: Spread
    fairness: Spread
    utilisation: Spread
    layer_shares: dict[str, float]
    pairwise_accuracy: Spread | None
    estimate_error: Spread | None
    attempts_per_answer: Spread | None
    retried_given_up_share: Spread | None
    retried_ttft_p50_s: Spread | None
    retried_ttft_p90_s: Spread | None
    adapter_waits_share: Spread | None = None
    imbalance: Spread | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation(Surroundings):
    """All of it, as it is written to JSON."""

    fleet: str
    workload: str
    capacity_per_s: float
    model_version: str | None
    policies: tuple[PolicySummary, ...]
    runs: tuple[PolicyRun, ...]


def summaries(runs: Sequence[PolicyRun]) -> tuple[PolicySummary, ...]:
    """Return each policy over its seeds, in the order in which they first come."""
    return tuple(_summary(policy, runs) for policy in dict.fromkeys(run.policy for run in runs))


def _summary(policy: str, runs: Sequence[PolicyRun]) -> PolicySummary:
    own = [run for run in runs if run.policy == policy]
    retried = [run.retried for run in own if run.retried is not None]
    judged = [run.estimate for run in own if run.estimate is not None]
    return PolicySummary(
        policy=policy,
        ttft_p50_s=_spread_of_known(own, lambda run: run.ttft_s(50)),
        ttft_p90_s=_spread_of_known(own, lambda run: run.ttft_s(90)),
        ttft_p99_s=_spread_of_known(own, lambda run: run.ttft_s(99)),
        delay_p50_s=_spread_of_known(own, lambda run: run.delay_s(50)),
        delay_p90_s=_spread_of_known(own, lambda run: run.delay_s(90)),
        delay_p99_s=_spread_of_known(own, lambda run: run.delay_s(99)),
        goodput=_spread(run.goodput for run in own),
        good=_spread(run.good for run in own),
        refused_share=_spread(run.refused_share for run in own),
        failed_share=_spread(run.failed_share for run in own),
        fairness=_spread(run.fairness for run in own),
        utilisation=_spread(run.utilisation for run in own),
        layer_shares=layer_shares(sum((Counter(run.decisions) for run in own), Counter())),
        pairwise_accuracy=_spread_of_known(judged, lambda quality: quality.pairwise_accuracy),
        estimate_error=_spread_of_known(judged, lambda quality: quality.median_error),
        attempts_per_answer=_spread_of_known(own, lambda run: run.attempts_per_answer),
        retried_given_up_share=_spread_of_known(retried, lambda each: each.given_up_share),
        retried_ttft_p50_s=_spread_of_known(retried, lambda each: each.ttft_p50_s),
        retried_ttft_p90_s=_spread_of_known(retried, lambda each: each.ttft_p90_s),
        adapter_waits_share=_spread_of_known(own, lambda run: run.adapter_waits_share),
        imbalance=_spread(run.imbalance for run in own),
    )


def _spread_of_known(judged: Sequence[Judged], value: Callable[[Judged], float | None]) -> Spread | None:
    known = [each for each in map(value, judged) if each is not None]
    return _spread(known) if known else None


def _spread(values: Iterable[float]) -> Spread:
    known = list(values)
    return Spread(statistics.median(known), min(known), max(known))
