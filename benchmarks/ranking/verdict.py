"""Whether what was measured is what was predicted. No I/O.

The noise of a prediction is known: the evaluator plays the same traffic several times, and only what the
policies draw at random differs. Each *draw* of it is one whole experiment, a figure of it the median over the
seeds, as in the real one. The real experiment is to be one among them.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

from benchmarks.ranking.figures import TTFTS, Figure, Figures, goodput_gain, ttft_gain

SURE = 0.95
"""Two policies are told apart where this many of the draws agree on which is the better one."""

Runs = Mapping[str, Sequence[Figures]]
"""By policy, in the order of the seeds."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A figure, real and predicted; `low` and `high` are the smallest and largest of the draws."""

    real: float
    predicted: float
    low: float
    high: float

    @property
    def is_within(self) -> bool:
        """The real one is among those predicted."""
        return self.low <= self.real <= self.high


@dataclass(frozen=True, slots=True)
class Order:
    """Policies that were predicted to come out one before the other, and whether they did."""

    better: str
    worse: str
    is_kept: bool


def compared(value: Callable[[Runs], float], real: Runs, draws: Sequence[Runs]) -> Comparison:
    """A figure of a whole experiment."""
    predicted = [value(draw) for draw in draws]
    return Comparison(value(real), statistics.median(predicted), min(predicted), max(predicted))


def median_of(figure: Figure, policy: str) -> Callable[[Runs], float]:
    """The median over the seeds."""
    return lambda runs: statistics.median(map(figure, runs[policy]))


def gains(ours: str, theirs: str) -> Mapping[str, Callable[[Runs], float]]:
    """By name the gains of one policy over another; each is the median over the seeds."""

    def over_seeds(gain: Callable[[Figures, Figures], float]) -> Callable[[Runs], float]:
        return lambda runs: statistics.median(map(gain, runs[ours], runs[theirs]))

    ttft_gains = {name: over_seeds(partial(ttft_gain, figure)) for name, figure in TTFTS.items()}
    return {**ttft_gains, "goodput": over_seeds(goodput_gain)}


def ranking(real: Runs, draws: Sequence[Runs], figure: Figure) -> list[Order]:
    """The pairs of policies that the figure, of which less is better, was predicted to tell apart."""
    orders = []
    for one, other in combinations(real, 2):
        values = [(median_of(figure, one)(draw), median_of(figure, other)(draw)) for draw in (real, *draws)]
        (real_one, real_other), *predicted = values
        for better, worse, sign in ((one, other, 1), (other, one, -1)):
            if sum(sign * a < sign * b for a, b in predicted) >= SURE * len(predicted):
                orders.append(Order(better, worse, sign * real_one < sign * real_other))
    return orders
