"""The scorers of the Kubernetes Gateway API's inference extension and of llm-d: its endpoint picker's.

Each scorer gives every endpoint 0 to 1; the sum by weight decides, and of the best ones any is picked.
Sources: kubernetes-sigs/gateway-api-inference-extension and llm-d/llm-d-inference-scheduler, the plugins
queue-scorer, kv-cache-utilization-scorer, token-load-scorer, active-request-scorer and max-score-picker. The
picker itself scrapes every 50 ms; here all policies scrape as often as the evaluation says.
"""

from collections.abc import Sequence

import numpy as np

from extproc.evaluation.draws import Draws
from extproc.evaluation.policies.counting import any_best
from extproc.evaluation.policies.policy import Candidate, Policy
from extproc.simulation.arrivals import Arrival

QUEUE_WEIGHT = 2.0
KV_CACHE_WEIGHT = 2.0
"""Borrowed: the picker's defaults. Its third scorer, of shared prefixes with weight 3, gives every endpoint 0
where no prefixes are shared, as here, and so decides nothing."""
TOKEN_THRESHOLD = 4_194_304
"""Borrowed: the tokens in flight at which the token-load scorer gives 0."""


def queue_scores(candidates: Sequence[Candidate]) -> list[float]:
    """1 for the shortest scraped queue, 0 for the longest; 1 for all where they are equal."""
    waiting = [candidate.gauges.waiting for candidate in candidates]
    shortest, longest = min(waiting), max(waiting)
    if shortest == longest:
        return [1.0] * len(waiting)
    return [(longest - each) / (longest - shortest) for each in waiting]


def kv_cache_scores(candidates: Sequence[Candidate]) -> list[float]:
    """The scraped share of the KV cache that is free."""
    return [1.0 - candidate.gauges.kv_cache_fraction for candidate in candidates]


def token_load_scores(candidates: Sequence[Candidate], prompt_tokens: int) -> list[float]:
    """How far own prompt tokens in flight, those of the request included, are from the threshold."""
    tokens = [candidate.tokens_in_flight + prompt_tokens for candidate in candidates]
    return [1.0 - min(each, TOKEN_THRESHOLD) / TOKEN_THRESHOLD for each in tokens]


def active_request_scores(candidates: Sequence[Candidate]) -> list[float]:
    """1 for none in flight, 0 for the most: the rule of least in flight, as a score."""
    counts = [candidate.in_flight for candidate in candidates]
    most = max(counts)
    return [(most - count) / most if most else 1.0 for count in counts]


class QueueAndKvCache(Policy):
    """The picker's default profile: queue 2, KV cache 2, prefix 3."""

    needs_gauges = True

    def __init__(self, rng: np.random.Generator) -> None:
        self._draws = Draws(rng)

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        """One of those with the best sum."""
        by_scorer = zip(queue_scores(candidates), kv_cache_scores(candidates), strict=True)
        scores = [QUEUE_WEIGHT * queue + KV_CACHE_WEIGHT * free for queue, free in by_scorer]
        return any_best(candidates, scores, self._draws)


class TokenLoad(Policy):
    """The token-load scorer alone."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._draws = Draws(rng)

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        """One of those with the fewest own tokens in flight."""
        return any_best(candidates, token_load_scores(candidates, request.prompt_tokens), self._draws)


class ActiveRequest(Policy):
    """The active-request scorer alone: the same choices as those of least in flight."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._draws = Draws(rng)

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        """One of those with the fewest own requests in flight."""
        return any_best(candidates, active_request_scores(candidates), self._draws)
