"""The result of one policy on one seed's traffic.

Goodput is the share of all requests, refused and failed ones included, whose first token came within the
objective. The delay of a request is how much later its first token came than it would have on the fleet's
fastest idle machine with nothing cached. *Good* is the share of all requests whose delay was within its
limit. The savings of a prefix cache may make a delay negative; below a tenth of a millisecond its size is not
kept.

Fairness is Jain's index (Jain, Chiu and Hawe, 1984) of the share of its own capacity that each backend had to
give: 1 where all are used alike, 1/n where one does everything.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

QUANTILES = tuple(percent / 100 for percent in range(1, 100))
"""Summaries of the distributions of TTFT and of the delay."""


@dataclass(frozen=True, slots=True)
class BackendResult:
    """One backend's part: requests answered, their mean TTFT, the share of the time that it computed."""

    name: str
    requests: int
    mean_ttft_s: float | None
    utilisation: float


@dataclass(frozen=True, slots=True)
class EstimateQuality:
    """How well the layered policy's estimate predicts TTFT, by some of its decisions.

    For each decision two candidates are compared: `pairs` counts those whose true TTFTs differ by more than
    a fifth, and `pairwise_accuracy` is the share of these that the estimate puts in the right order.
    `median_error` is the relative error of the estimate for the backend that was chosen.
    """

    decisions: int
    pairs: int
    pairwise_accuracy: float | None
    median_error: float | None


@dataclass(frozen=True, slots=True)
class RetriedRequests:
    """Those that were refused or lost at first, and sent again: times count from the first attempt."""

    answered: int
    given_up: int
    ttft_p50_s: float | None
    ttft_p90_s: float | None
    given_up_p50_s: float | None

    @property
    def given_up_share(self) -> float:
        """The share of them that was never answered."""
        return self.given_up / (self.answered + self.given_up)


@dataclass(frozen=True, slots=True)
class PolicyRun:
    """One policy on one seed; quantiles are of the answered requests, in the order of QUANTILES.

    All attempts of a client are one request; `attempts` counts them, `retried` is there if there were more
    than one of any. `decisions` counts those of the layered policy by layer and reason, `layer_shares` are
    the layers' shares of them. `estimate` is there where it was judged, `adapter_waits` (requests that waited
    for a place for their adapter) where servers have this many places.
    """

    policy: str
    seed: int
    requests: int
    refused: int
    failed: int
    attempts: int
    retried: RetriedRequests | None
    duration_s: float
    goodput: float
    good: float
    ttft_quantiles_s: tuple[float, ...] | None
    delay_quantiles_s: tuple[float, ...] | None
    mean_ttft_s: float | None
    fairness: float
    utilisation: float
    backends: tuple[BackendResult, ...]
    decisions: dict[str, int]
    layer_shares: dict[str, float]
    estimate: EstimateQuality | None
    adapter_waits: int | None = None

    @property
    def adapter_waits_share(self) -> float | None:
        """Requests that waited for a place for their adapter, of all; None where servers have any number."""
        return None if self.adapter_waits is None else self.adapter_waits / max(1, self.requests)

    @property
    def imbalance(self) -> float:
        """By which share of the mean a server answered more or fewer requests, at the most."""
        answered = [backend.requests for backend in self.backends]
        mean = sum(answered) / max(1, len(answered))
        return max(abs(each / mean - 1) for each in answered) if mean else 0.0

    @property
    def refused_share(self) -> float:
        """Refused requests, of all."""
        return self.refused / self.requests if self.requests else 0.0

    @property
    def attempts_per_answer(self) -> float | None:
        """How many attempts of clients there were for one answer; None without answers."""
        answered = self.requests - self.refused - self.failed
        return self.attempts / answered if answered else None

    @property
    def failed_share(self) -> float:
        """Requests that a failing backend lost or refused, of all."""
        return self.failed / self.requests if self.requests else 0.0

    def ttft_s(self, percent: int) -> float | None:
        """Return a quantile of TTFT, 1 to 99."""
        return None if self.ttft_quantiles_s is None else self.ttft_quantiles_s[percent - 1]

    def delay_s(self, percent: int) -> float | None:
        """Return a quantile of the delay, 1 to 99."""
        return None if self.delay_quantiles_s is None else self.delay_quantiles_s[percent - 1]


def layer_shares(decisions: Mapping[str, int]) -> dict[str, float]:
    """Return each layer's share of decisions that are counted by layer and reason; none without decisions."""
    totals: Counter[str] = Counter()
    for name, count in decisions.items():
        totals[name.partition("/")[0]] += count
    return {layer: count / totals.total() for layer, count in totals.items()} if totals.total() else {}


def fairness(used_shares: Sequence[float]) -> float:
    """Return Jain's index; 1 where nothing was used at all."""
    squares = sum(share * share for share in used_shares)
    return sum(used_shares) ** 2 / (len(used_shares) * squares) if squares else 1.0
