"""What is counted while a run goes on: fixed memory, whatever the number of requests."""

from collections.abc import Mapping, Sequence

import numpy as np

from extproc.lab.evaluation.fine_histogram import FineHistogram
from extproc.lab.evaluation.result import QUANTILES, BackendResult, PolicyRun, fairness
from extproc.lab.evaluation.simulated_server import Server

_BATCH = 1024


class Tally:
    """The counts of one run; answers are counted in batches, which is a tenth of the work."""

    def __init__(self, backends: int, slo_s: float) -> None:
        self.requests = 0
        self.refused = 0
        self.failed = 0
        self._ttft = FineHistogram()
        self._slo_s = slo_s
        self._within_slo = 0
        self._answered_by = np.zeros(backends, np.int64)
        self._ttft_sums_s = np.zeros(backends)
        self._new_backends: list[int] = []
        self._new_ttfts_s: list[float] = []

    def ended(self, backend: int, ttft_s: float) -> None:
        """A request was answered."""
        self._new_backends.append(backend)
        self._new_ttfts_s.append(ttft_s)
        if len(self._new_ttfts_s) == _BATCH:
            self._count_new()

    def result(
        self,
        policy: str,
        seed: int,
        duration_s: float,
        servers: Sequence[Server],
        capacities_per_s: Sequence[float],
        decisions: Mapping[str, int],
    ) -> PolicyRun:
        """The figures at the end of the run."""
        self._count_new()
        answered_by = self._answered_by.tolist()
        busy = [server.busy_s / duration_s if duration_s else 0.0 for server in servers]
        names = [server.spec.name for server in servers]
        used = [count / capacity for count, capacity in zip(answered_by, capacities_per_s, strict=True)]
        parts = zip(names, answered_by, self._ttft_sums_s.tolist(), busy, strict=True)
        return PolicyRun(
            policy=policy,
            seed=seed,
            requests=self.requests,
            refused=self.refused,
            failed=self.failed,
            duration_s=duration_s,
            goodput=self._within_slo / self.requests if self.requests else 0.0,
            ttft_quantiles_s=self._ttft.quantiles_s(*QUANTILES),
            mean_ttft_s=self._ttft.sum_s / self._ttft.count if self._ttft.count else None,
            fairness=fairness(used),
            utilisation=sum(busy) / len(busy),
            backends=tuple(
                BackendResult(name, count, sum_s / count if count else None, share)
                for name, count, sum_s, share in parts
            ),
            decisions=dict(decisions),
        )

    def _count_new(self) -> None:
        ttfts_s = np.array(self._new_ttfts_s)
        self._ttft.add(ttfts_s)
        self._within_slo += int(np.count_nonzero(ttfts_s <= self._slo_s))
        np.add.at(self._answered_by, self._new_backends, 1)
        np.add.at(self._ttft_sums_s, self._new_backends, ttfts_s)
        self._new_backends.clear()
        self._new_ttfts_s.clear()
