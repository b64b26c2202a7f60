"""What is counted while a run goes on: fixed memory, whatever the number of requests."""

from collections.abc import Mapping, Sequence

from extproc.evaluation.result import QUANTILES, BackendResult, RunResult, fairness
from extproc.evaluation.server import Server
from extproc.evaluation.ttft_histogram import TtftHistogram


class Tally:
    """The counts of one run."""

    def __init__(self, backends: int, slo_s: float) -> None:
        self.requests = 0
        self.refused = 0
        self.failed = 0
        self.answered = 0
        self.ttft = TtftHistogram()
        self._slo_s = slo_s
        self._within_slo = 0
        self._answered_by = [0] * backends
        self._ttft_sums_s = [0.0] * backends

    def ended(self, backend: int, ttft_s: float) -> None:
        """A request was answered."""
        self.answered += 1
        self.ttft.add(ttft_s)
        self._within_slo += ttft_s <= self._slo_s
        self._answered_by[backend] += 1
        self._ttft_sums_s[backend] += ttft_s

    def result(
        self,
        policy: str,
        seed: int,
        duration_s: float,
        servers: Sequence[Server],
        capacities_per_s: Sequence[float],
        decisions: Mapping[str, int],
    ) -> RunResult:
        """The figures at the end of the run."""
        busy = [server.busy_s / duration_s if duration_s else 0.0 for server in servers]
        names = [server.spec.name for server in servers]
        used = [count / capacity for count, capacity in zip(self._answered_by, capacities_per_s, strict=True)]
        parts = zip(names, self._answered_by, self._ttft_sums_s, busy, strict=True)
        return RunResult(
            policy=policy,
            seed=seed,
            requests=self.requests,
            refused=self.refused,
            failed=self.failed,
            duration_s=duration_s,
            goodput=self._within_slo / self.requests if self.requests else 0.0,
            ttft_quantiles_s=self.ttft.quantiles_s(*QUANTILES),
            mean_ttft_s=self.ttft.sum_s / self.ttft.count if self.ttft.count else None,
            fairness=fairness(used),
            utilisation=sum(busy) / len(busy),
            backends=tuple(
                BackendResult(name, count, sum_s / count if count else None, share)
                for name, count, sum_s, share in parts
            ),
            decisions=dict(decisions),
        )
