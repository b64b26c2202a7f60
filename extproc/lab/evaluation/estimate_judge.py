"""How well the estimate of the layered policy predicts TTFT, held against what the engines would really do.

Some decisions are looked at, evenly spread over the run. For each, the TTFT that the request would have is
found by letting copies of the engines run on, as the oracle does: on two candidates drawn at random, and on
the one that was chosen. A run is not changed by being judged: engines are copied, and the draws are the
judge's own.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from extproc.lab.evaluation.result import EstimateQuality
from extproc.lab.evaluation.simulated_router import SimulatedRouter
from extproc.lab.evaluation.simulated_server import Server
from extproc.lab.rivals.layered import Layered
from extproc.lab.rivals.oracle import ttft_if_sent
from extproc.lab.rivals.policy import Draws
from extproc.lab.traffic.arrivals import Arrival

MAX_JUDGED = 2000
"""Decisions of a run, at most: a truth costs some milliseconds on engines of full size."""
_DRAWS = 2000
"""Tells the judge's random numbers from those of the traffic, which has the same seed."""
DIFFERENCE = 0.2
"""Pairs whose true TTFTs differ by less are a matter of taste."""


class EstimateJudge:
    """Looks at every n-th of the requests that will come from `from_s` on, at `most` of them."""

    def __init__(
        self, servers: Sequence[Server], foreseen: Iterable[Arrival], from_s: float, seed: int, most: int
    ) -> None:
        self._servers = servers
        self._from_s = from_s
        requests = sum(request.at_s >= from_s for request in foreseen)
        self._every = max(1, math.ceil(requests / most))
        self._seen = 0
        self._judged = 0
        self._pairs = 0
        self._right = 0.0
        self._errors: list[float] = []
        self._draws = Draws(np.random.default_rng([seed, _DRAWS]))

    def choose(self, router: SimulatedRouter, request_id: int, request: Arrival, now_s: float) -> int | None:
        """Have the router place a request, and judge what its policy estimated before."""
        policy = router.policy
        if not isinstance(policy, Layered) or not self._is_next(now_s):
            return router.choose(request_id, request, now_s)
        servers, estimates_s = self._servers, policy.estimates_s(request, now_s)
        known_s = {each: value_s for each, value_s in estimates_s.items() if servers[each].is_up}
        self._judged += 1
        self._compare_two(known_s, request, now_s)
        backend = router.choose(request_id, request, now_s)
        if backend in known_s:
            truth_s = ttft_if_sent(servers[backend], request, now_s)
            self._errors.append(abs(known_s[backend] - truth_s) / truth_s)
        return backend

    def quality(self) -> EstimateQuality:
        """Return what was found."""
        return EstimateQuality(
            decisions=self._judged,
            pairs=self._pairs,
            pairwise_accuracy=self._right / self._pairs if self._pairs else None,
            median_error=statistics.median(self._errors) if self._errors else None,
        )

    def _is_next(self, now_s: float) -> bool:
        if now_s < self._from_s:
            return False
        self._seen += 1
        return self._seen % self._every == 0

    def _compare_two(self, estimates_s: Mapping[int, float], request: Arrival, now_s: float) -> None:
        """Compare the order of two candidates with the true one; a tie of the estimates is half right."""
        candidates = list(estimates_s)
        if len(candidates) < 2:
            return
        first = self._draws.below(len(candidates))
        second = (first + 1 + self._draws.below(len(candidates) - 1)) % len(candidates)
        one, other = candidates[first], candidates[second]
        one_s, other_s = (ttft_if_sent(self._servers[each], request, now_s) for each in (one, other))
        if max(one_s, other_s) <= (1 + DIFFERENCE) * min(one_s, other_s):
            return
        self._pairs += 1
        if estimates_s[one] == estimates_s[other]:
            self._right += 0.5
        else:
            self._right += (estimates_s[one] < estimates_s[other]) == (one_s < other_s)
