"""Token load and prefix affinity: the llm-d router's optimized baseline, as it ships since August 2026.

Source: llm-d/llm-d-router at ebab687 (2026-08-21), the plugins prefix-cache-affinity-filter,
token-load-scorer, inflight-load-producer and approx-prefix-cache-producer at their defaults, in the profile
of llm-d's guide "optimized baseline"; max-score-picker. A request stays with the endpoints that have most of
its prompt, unless the least loaded of these has so many more tokens in flight than the least loaded of the
others that its first token would come too late. Of the endpoints that are left it takes the one with the
fewest tokens in flight, its own included; of several one at random. Tokens in flight are those of prompts,
less what the router believes to be cached there, and are released with the first part of the response.

The rate that turns tokens into seconds is the default, measured by llm-d on other machines; its guide
recommends to measure one's own. Several routers do not tell each other what they have in flight.
"""

import math
from collections.abc import Sequence

import numpy as np

from extproc.lab.rivals.endpoint_picker import TOKEN_THRESHOLD, PrefixIndex
from extproc.lab.rivals.policy import Candidate
from extproc.lab.rivals.prefill_load import LeastPrefill
from extproc.lab.traffic.arrivals import Arrival

AFFINITY_THRESHOLD = 0.8
MAX_PENALTY_S = 18.0
PREFILL_TOKENS_PER_S = 15_928.0
INDEX_BLOCK_TOKENS = 64
MAX_PREFIX_TOKENS = 131_072
"""All borrowed: the plugins' defaults; an engine's block of 16 tokens is too small for the index."""


class TokenLoadAffinity(LeastPrefill):
    """One endpoint picker."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(PrefixIndex(INDEX_BLOCK_TOKENS, MAX_PREFIX_TOKENS // INDEX_BLOCK_TOKENS), rng)

    def scores(self, candidates: Sequence[Candidate], request: Arrival) -> list[float]:
        """Return the token-load scorer's scores, and -inf for what the filter takes out."""
        queued = self.queued(candidates)
        loads = zip(queued, self.uncached(candidates, request), strict=True)
        scores = [1.0 - min(sum(load), TOKEN_THRESHOLD) / TOKEN_THRESHOLD for load in loads]
        if not request.content:
            return scores
        is_kept = self._kept(candidates, request, queued)
        return [score if kept else -math.inf for score, kept in zip(scores, is_kept, strict=True)]

    def _kept(
        self, candidates: Sequence[Candidate], request: Arrival, queued: Sequence[int]
    ) -> Sequence[bool]:
        """Return which candidates the affinity filter lets through."""
        is_sticky = [share >= AFFINITY_THRESHOLD for share in self.index.scores(candidates, request)]
        if all(is_sticky) or not any(is_sticky):
            return [True] * len(candidates)
        sticky, others = (
            min(tokens for tokens, each in zip(queued, is_sticky, strict=True) if each is wanted)
            for wanted in (True, False)
        )
        is_too_late = (sticky - others) / PREFILL_TOKENS_PER_S > MAX_PENALTY_S
        return [True] * len(candidates) if is_too_late else is_sticky
