"""The figures of one run, real or predicted, and the gain of one policy over another. No I/O."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from extproc.lab.evaluation.result import PolicyRun
from extproc.lab.evaluation.tally import FineHistogram

NOT_ANSWERED_S = float("inf")


@dataclass(frozen=True, slots=True)
class Figures:
    """One policy on one seed; TTFTs are of the answered requests, goodput is of all."""

    requests: int
    refused: int
    failed: int
    p50_s: float
    p90_s: float
    p99_s: float
    goodput: float


Figure = Callable[[Figures], float]
TTFTS: Mapping[str, Figure] = {
    "TTFT p50": lambda run: run.p50_s,
    "TTFT p90": lambda run: run.p90_s,
    "TTFT p99": lambda run: run.p99_s,
}


def measured(ttfts_s: Iterable[float], refused: int, failed: int, slo_s: float) -> Figures:
    """Of the TTFTs of those that were answered, and the number of those that were not."""
    answered_s, histogram = np.fromiter(ttfts_s, dtype=np.float64), FineHistogram()
    histogram.add(answered_s)
    p50_s, p90_s, p99_s = histogram.quantiles_s(0.5, 0.9, 0.99) or (NOT_ANSWERED_S,) * 3
    requests = histogram.count + refused + failed
    goodput = int(np.count_nonzero(answered_s <= slo_s)) / requests if requests else 0.0
    return Figures(requests, refused, failed, p50_s, p90_s, p99_s, goodput)


def predicted(run: PolicyRun) -> Figures:
    """The same of an evaluation."""
    p50_s, p90_s, p99_s = (run.ttft_s(percent) or NOT_ANSWERED_S for percent in (50, 90, 99))
    return Figures(run.requests, run.refused, run.failed, p50_s, p90_s, p99_s, run.goodput)


def ttft_gain(figure: Figure, ours: Figures, theirs: Figures) -> float:
    """By which share ours is shorter; negative where it is longer."""
    return 1 - figure(ours) / figure(theirs)


def goodput_gain(ours: Figures, theirs: Figures) -> float:
    """By how much of all requests ours has more in time."""
    return ours.goodput - theirs.goodput
