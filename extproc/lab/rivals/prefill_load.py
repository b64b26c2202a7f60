"""Rivals that count prompt tokens: those sent and not computed yet, and those that are cached somewhere.

A prompt is computed when its response begins, or when its request fails before that. A router believes each
prompt to be in the prefix cache where it was sent, as the newest of as many blocks as the KV cache has.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from extproc.lab.engine.engine_profile import DEFAULT_BLOCK_SIZE
from extproc.lab.rivals.counting import BestScore
from extproc.lab.rivals.endpoint_picker import INDEXED_BLOCKS, TOKEN_THRESHOLD, PrefixIndex
from extproc.lab.rivals.policy import Candidates, Ended
from extproc.lab.traffic.arrivals import Arrival


class LeastPrefill(BestScore):
    """The backend with the largest score; the size of its KV cache is scraped."""

    needs_gauges = True

    def __init__(self, index: PrefixIndex, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self.index = index
        self._queued: defaultdict[int, int] = defaultdict(int)
        self._open: dict[int, tuple[int, int]] = {}

    def choose(self, request_id: int, request: Arrival, candidates: Candidates, now_s: float) -> int:
        """Return one of the best, and expect the prompt in its cache."""
        chosen = super().choose(request_id, request, candidates, now_s)
        candidate = next(each for each in candidates if each.backend == chosen)
        (tokens,) = self.uncached([candidate], request)
        self._open[request_id] = chosen, tokens
        self._queued[chosen] += tokens
        if request.content:
            blocks = candidate.gauges.kv_cache_tokens // DEFAULT_BLOCK_SIZE
            self.index.add(chosen, request, blocks or INDEXED_BLOCKS)
        return chosen

    def queued(self, candidates: Candidates) -> list[int]:
        """Return how many prompt tokens of this router each candidate has still to compute."""
        return [self._queued[candidate.backend] for candidate in candidates]

    def uncached(self, candidates: Candidates, request: Arrival) -> list[int]:
        """Return how many tokens of the prompt each candidate would have to compute."""
        if not request.content:
            return [request.prompt_tokens] * len(candidates)
        return [request.prompt_tokens - cached for cached in self.index.cached_tokens(candidates, request)]

    def first_token(self, request_id: int, backend: int, ttft_s: float, now_s: float) -> None:
        """Take the prompt off: it is computed."""
        if (known := self._open.pop(request_id, None)) is not None:
            backend, tokens = known
            self._queued[backend] -= tokens

    def ended(self, request: Ended, now_s: float) -> None:
        """Take off a request that failed before it began."""
        self.first_token(request.request_id, request.backend, request.duration_s, now_s)


class LMetric(LeastPrefill):
    """The smallest product of prompt tokens to compute and of requests in the batch; no parameters.

    Zhang et al., "Simple is Better: Multiplication May Be All You Need for LLM Request Scheduling" (OSDI
    2026, arXiv 2603.15202): a request goes to the instance with the smallest `P-token * BS`. P-token is what
    the instance would have to prefill: the prompt tokens that are queued there, and those of the request that
    are not in its prefix cache. BS is its batch size, running and queued. By the authors' own router
    (blitz-serving/blitz-router, policy lmetric-q) both count the request itself, so that an idle instance is
    not 0 whatever it has cached. Prefixes are found block by block, as engines do, however long they are.

    Assumed: of equal products any is taken, and a router knows its own requests, not those of others, while
    theirs gets the engine's own figures with its responses. The paper's detector of prefixes that are too
    popular for the instances that hold them is left out; the authors found none in their four traces.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(PrefixIndex(max_blocks=sys.maxsize), rng)

    def scores(self, candidates: Candidates, request: Arrival) -> list[float]:
        """Return the products, negative, so that the largest is the best."""
        tokens = zip(self.queued(candidates), self.uncached(candidates, request), strict=True)
        return [
            -sum(prefill) * (candidate.in_flight + 1.0)
            for prefill, candidate in zip(tokens, candidates, strict=True)
        ]


AFFINITY_THRESHOLD = 0.8
MAX_PENALTY_S = 18.0
PREFILL_TOKENS_PER_S = 15_928.0
INDEX_BLOCK_TOKENS = 64
MAX_PREFIX_TOKENS = 131_072
"""All borrowed: the plugins' defaults; an engine's block of 16 tokens is too small for the index."""


class TokenLoadAffinity(LeastPrefill):
    """Token load and prefix affinity: the llm-d router's optimized baseline, shipped since August 2026.

    Source: llm-d/llm-d-router at ebab687 (2026-08-21), the plugins prefix-cache-affinity-filter,
    token-load-scorer, inflight-load-producer and approx-prefix-cache-producer at their defaults, in the
    profile of llm-d's guide "optimized baseline"; max-score-picker. A request stays with the endpoints that
    have most of its prompt, unless the least loaded of these has so many more tokens in flight than the least
    loaded of the others that its first token would come too late. Among the endpoints that are left it takes
    the one with the fewest tokens in flight, its own included; ties are broken at random. Tokens in flight
    are those of prompts, less what the router believes to be cached there, and are released with the first
    part of the response.

    The rate that turns tokens into seconds is the default, measured by llm-d on other machines; its guide
    recommends to measure one's own. Several routers do not tell each other what they have in flight.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(PrefixIndex(INDEX_BLOCK_TOKENS, MAX_PREFIX_TOKENS // INDEX_BLOCK_TOKENS), rng)

    def scores(self, candidates: Candidates, request: Arrival) -> list[float]:
        """Return the token-load scorer's scores, and -inf for what the filter takes out."""
        queued = self.queued(candidates)
        loads = zip(queued, self.uncached(candidates, request), strict=True)
        scores = [1.0 - min(sum(load), TOKEN_THRESHOLD) / TOKEN_THRESHOLD for load in loads]
        if not request.content:
            return scores
        is_kept = self._kept(candidates, request, queued)
        return [score if kept else -math.inf for score, kept in zip(scores, is_kept, strict=True)]

    def _kept(self, candidates: Candidates, request: Arrival, queued: Sequence[int]) -> Sequence[bool]:
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
