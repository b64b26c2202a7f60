"""LMetric: the smallest product of prompt tokens to compute and of requests in the batch; no parameters.

Zhang et al., "Simple is Better: Multiplication May Be All You Need for LLM Request Scheduling" (OSDI 2026,
arXiv 2603.15202): a request goes to the instance with the smallest `P-token * BS`. P-token is what the
instance would have to prefill: the prompt tokens that are queued there, and those of the request that are not
in its prefix cache. BS is its batch size, running and queued. By the authors' own router
(blitz-serving/blitz-router, policy lmetric-q) both count the request itself, so that an idle instance is not
0 whatever it has cached.

Assumed: of equal products any is taken, and a router knows its own requests, not those of others, while
theirs gets the engine's own figures with its responses. The paper's detector of prefixes that are too popular
for the instances that hold them is left out; the authors found no such prefix in their four traces.
"""

import sys
from collections.abc import Sequence

import numpy as np

from extproc.lab.rivals.endpoint_picker import PrefixIndex
from extproc.lab.rivals.policy import Candidate
from extproc.lab.rivals.prefill_load import LeastPrefill
from extproc.lab.traffic.arrivals import Arrival


class LMetric(LeastPrefill):
    """One router; it finds prefixes block by block, as the engines do, however long they are."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(PrefixIndex(max_blocks=sys.maxsize), rng)

    def scores(self, candidates: Sequence[Candidate], request: Arrival) -> list[float]:
        """Return the products, negative, so that the largest is the best."""
        tokens = zip(self.queued(candidates), self.uncached(candidates, request), strict=True)
        return [
            -sum(prefill) * (candidate.in_flight + 1.0)
            for prefill, candidate in zip(tokens, candidates, strict=True)
        ]
