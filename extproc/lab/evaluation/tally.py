"""The counts of a run under way: fixed memory, whatever the number of requests."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from extproc.lab.evaluation.idle_fleet import IdleFleet
from extproc.lab.evaluation.result import (
    QUANTILES,
    BackendResult,
    EstimateQuality,
    PolicyRun,
    RetriedRequests,
    fairness,
    layer_shares,
)
from extproc.lab.evaluation.simulated_server import Server
from extproc.lab.traffic.arrivals import Arrival

LOWEST_S = 1e-4
HIGHEST_S = 1e5
GROWTH = 1.005
_LOG_GROWTH = math.log(GROWTH)
_BUCKETS = math.ceil(math.log(HIGHEST_S / LOWEST_S) / _LOG_GROWTH) + 1


class FineHistogram:
    """TTFTs in buckets that grow by half a percent: quantiles of any number of requests in fixed memory.

    A quantile is off by a quarter of a percent at most, between `LOWEST_S` and `HIGHEST_S`.
    """

    def __init__(self) -> None:
        self.count = 0
        self.sum_s = 0.0
        self._counts = np.zeros(_BUCKETS, np.int64)

    def add(self, ttfts_s: npt.NDArray[np.float64]) -> None:
        """Add some more requests."""
        self.count += len(ttfts_s)
        # The sum of all is the same, to the last digit, whatever part of them comes at once.
        self.sum_s = float(np.cumsum(np.append(self.sum_s, ttfts_s))[-1])
        shares = np.clip(ttfts_s, LOWEST_S, HIGHEST_S) / LOWEST_S
        buckets = np.floor(np.log(shares) / _LOG_GROWTH).astype(np.int64)
        self._counts += np.bincount(buckets, minlength=_BUCKETS)

    def quantiles_s(self, *shares: float) -> tuple[float, ...] | None:
        """Return the smallest TTFTs that these shares of requests do not exceed; None without requests."""
        if not self.count:
            return None
        ranks = [max(1, math.ceil(share * self.count)) for share in shares]
        buckets = np.searchsorted(np.cumsum(self._counts), ranks).tolist()
        return tuple(LOWEST_S * GROWTH ** (bucket + 0.5) for bucket in buckets)


_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Objectives:
    """The demands on the first token: to come within `slo_s`, and at most `delay_limit_s` later than on the
    fastest idle machine. Requests that arrive before `from_s` are not counted.
    """

    slo_s: float
    delay_limit_s: float
    from_s: float


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """A request as it was sent now; its user sent it first at `first_at_s`, and `earlier` times before."""

    arrival: Arrival
    first_at_s: float
    earlier: int = 0


class Tally:
    """The counts of one run; answers are counted in batches, which is a tenth of the work."""

    def __init__(self, servers: Sequence[Server], objectives: Objectives) -> None:
        self._requests = 0
        self._refused = 0
        self._failed = 0
        self._servers = servers
        self._objectives = objectives
        self._from_s = objectives.from_s
        self._idle = IdleFleet([server.spec for server in servers])
        self._ttft = FineHistogram()
        self._delay = FineHistogram()
        self._attempts = 0
        self._ttft_of_retried = FineHistogram()
        self._given_up = FineHistogram()
        self._within_slo = 0
        self._good = 0
        self._answered_by = np.zeros(len(servers), np.int64)
        self._ttft_sums_s = np.zeros(len(servers))
        self._busy_before_s = [0.0] * len(servers)
        self._waits_before = 0
        self._new_backends: list[int] = []
        self._new_ttfts_s: list[float] = []
        self._new_prompts: list[int] = []

    def begin(self) -> None:
        """Count the servers' computing from now on, which is at `from_s`."""
        self._busy_before_s = [server.busy_s for server in self._servers]
        self._waits_before = self._adapter_waits()

    def arrived(self, request: Arrival) -> None:
        """Count a request."""
        self._requests += request.at_s >= self._from_s

    def refused(self, last: Attempt, now_s: float) -> None:
        """Count a request whose last attempt was refused."""
        self._refused += self._gave_up(last, now_s)

    def failed(self, last: Attempt, now_s: float) -> None:
        """Count a request whose last attempt a backend lost or refused."""
        self._failed += self._gave_up(last, now_s)

    def ended(self, attempt: Attempt, backend: int, ttft_s: float) -> None:
        """Count a request that was answered; TTFT is that of this attempt."""
        if attempt.first_at_s < self._from_s:
            return
        self._attempts += attempt.earlier + 1
        if attempt.earlier:
            ttft_s += attempt.arrival.at_s - attempt.first_at_s
            self._ttft_of_retried.add(np.array([ttft_s]))
        self._new_backends.append(backend)
        self._new_ttfts_s.append(ttft_s)
        self._new_prompts.append(attempt.arrival.prompt_tokens)
        if len(self._new_ttfts_s) == _BATCH:
            self._count_new()

    def _gave_up(self, last: Attempt, now_s: float) -> bool:
        if last.first_at_s < self._from_s:
            return False
        self._attempts += last.earlier + 1
        if last.earlier:
            self._given_up.add(np.array([now_s - last.first_at_s]))
        return True

    def result(
        self,
        policy: str,
        seed: int,
        duration_s: float,
        capacities_per_s: Sequence[float],
        decisions: Mapping[str, int],
        estimate: EstimateQuality | None,
    ) -> PolicyRun:
        """Return the figures at the end of the run."""
        self._count_new()
        backends = self._backends(duration_s)
        used = [each.requests / capacity for each, capacity in zip(backends, capacities_per_s, strict=True)]
        return PolicyRun(
            policy=policy,
            seed=seed,
            requests=self._requests,
            refused=self._refused,
            failed=self._failed,
            attempts=self._attempts,
            retried=self._retried(),
            duration_s=duration_s,
            goodput=self._within_slo / self._requests if self._requests else 0.0,
            good=self._good / self._requests if self._requests else 0.0,
            ttft_quantiles_s=self._ttft.quantiles_s(*QUANTILES),
            delay_quantiles_s=self._delay.quantiles_s(*QUANTILES),
            mean_ttft_s=self._ttft.sum_s / self._ttft.count if self._ttft.count else None,
            fairness=fairness(used),
            utilisation=sum(each.utilisation for each in backends) / len(backends),
            backends=backends,
            decisions=dict(decisions),
            layer_shares=layer_shares(decisions),
            estimate=estimate,
            adapter_waits=self._adapter_waits() - self._waits_before if self._has_adapter_places() else None,
        )

    def _has_adapter_places(self) -> bool:
        return any(server.spec.limits.adapter_places is not None for server in self._servers)

    def _adapter_waits(self) -> int:
        """Count waits for adapters; those on servers that have failed are lost."""
        return sum(server.engine.counters.adapter_waits for server in self._servers)

    def _retried(self) -> RetriedRequests | None:
        answered, given_up = self._ttft_of_retried, self._given_up
        if not answered.count + given_up.count:
            return None
        return RetriedRequests(
            answered=answered.count,
            given_up=given_up.count,
            ttft_p50_s=_quantile_s(answered, 0.5),
            ttft_p90_s=_quantile_s(answered, 0.9),
            given_up_p50_s=_quantile_s(given_up, 0.5),
        )

    def _backends(self, duration_s: float) -> tuple[BackendResult, ...]:
        counted_s = duration_s - self._from_s
        computed_s = [
            server.busy_s - before_s
            for server, before_s in zip(self._servers, self._busy_before_s, strict=True)
        ]
        names = [server.spec.name for server in self._servers]
        parts = zip(names, self._answered_by.tolist(), self._ttft_sums_s.tolist(), computed_s, strict=True)
        return tuple(
            BackendResult(
                name, count, sum_s / count if count else None, busy_s / counted_s if counted_s > 0 else 0.0
            )
            for name, count, sum_s, busy_s in parts
        )

    def _count_new(self) -> None:
        ttfts_s = np.array(self._new_ttfts_s)
        delays_s = ttfts_s - self._idle.fastest_ttfts_s(np.array(self._new_prompts, np.float64))
        self._ttft.add(ttfts_s)
        self._delay.add(delays_s)
        self._within_slo += int(np.count_nonzero(ttfts_s <= self._objectives.slo_s))
        self._good += int(np.count_nonzero(delays_s <= self._objectives.delay_limit_s))
        np.add.at(self._answered_by, self._new_backends, 1)
        np.add.at(self._ttft_sums_s, self._new_backends, ttfts_s)
        self._new_backends.clear()
        self._new_ttfts_s.clear()
        self._new_prompts.clear()


def _quantile_s(times: FineHistogram, share: float) -> float | None:
    found = times.quantiles_s(share)
    return None if found is None else found[0]
