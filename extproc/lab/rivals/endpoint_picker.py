"""The scorers of the Kubernetes Gateway API's inference extension and of llm-d: its endpoint picker's.

Each scorer gives every endpoint 0 to 1; the sum by weight decides, and of the best ones any is picked.
Sources: kubernetes-sigs/gateway-api-inference-extension and llm-d/llm-d-inference-scheduler, the plugins
queue-scorer, kv-cache-utilization-scorer, prefix-cache-scorer, token-load-scorer, active-request-scorer and
max-score-picker. The picker itself scrapes every 50 ms; here all policies scrape as often as the evaluation
says. Where the queues are of one length the queue scorer gives all 1, and the token-load scorer counts what
is in flight; adding the request's own tokens, as here, changes no order.

Prefixes are tracked as its approximate plugin does: what was sent to an endpoint is taken to be in its cache,
as the newest of at most this many blocks; the score is the share of the prompt's full blocks found there.
Only blocks that can come again are kept here, so the index forgets a little later than the real one.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from extproc.lab.engine.engine_profile import DEFAULT_BLOCK_SIZE
from extproc.lab.rivals.counting import BestScore
from extproc.lab.rivals.policy import Candidates
from extproc.lab.traffic.arrivals import Arrival

QUEUE_WEIGHT = 2.0
KV_CACHE_WEIGHT = 2.0
PREFIX_WEIGHT = 3.0
"""Borrowed: the picker's defaults."""
MAX_PREFIX_BLOCKS = 256
INDEXED_BLOCKS = 31_250
"""Borrowed: its defaults for how much of a prompt is looked at, and for an endpoint's part of the index."""
TOKEN_THRESHOLD = 4_194_304
"""Borrowed: the tokens in flight at which the token-load scorer gives 0."""


def queue_scores(candidates: Candidates) -> list[float]:
    """Return 1 for the shortest scraped queue, 0 for the longest; 1 for all where they are equal."""
    waiting = [candidate.gauges.waiting for candidate in candidates]
    shortest, longest = min(waiting), max(waiting)
    if shortest == longest:
        return [1.0] * len(waiting)
    return [(longest - each) / (longest - shortest) for each in waiting]


def kv_cache_scores(candidates: Candidates) -> list[float]:
    """Return the scraped share of the KV cache that is free."""
    return [1.0 - candidate.gauges.kv_cache_fraction for candidate in candidates]


def token_load_scores(candidates: Candidates, prompt_tokens: int) -> list[float]:
    """Return how far own prompt tokens in flight, those of the request included, are from the threshold."""
    tokens = [candidate.tokens_in_flight + prompt_tokens for candidate in candidates]
    return [1.0 - min(each, TOKEN_THRESHOLD) / TOKEN_THRESHOLD for each in tokens]


def active_request_scores(candidates: Candidates) -> list[float]:
    """Return 1 for none in flight, 0 for the most: the rule of least in flight, as a score."""
    counts = [candidate.in_flight for candidate in candidates]
    most = max(counts)
    return [(most - count) / most if most else 1.0 for count in counts]


class PrefixIndex:
    """One picker's belief about the prefix caches, by endpoint, the newest block last.

    A block has `block_tokens`, a multiple of the engine's; of a prompt the first `max_blocks` count.
    """

    def __init__(self, block_tokens: int = DEFAULT_BLOCK_SIZE, max_blocks: int = MAX_PREFIX_BLOCKS) -> None:
        self._blocks: dict[int, OrderedDict[int, None]] = {}
        self._block_tokens = block_tokens
        self._max_blocks = max_blocks

    def scores(self, candidates: Candidates, request: Arrival) -> list[float]:
        """Return the share of the request's full blocks that an endpoint is believed to have."""
        total = self._full_blocks(request)
        return [count / total if total else 0.0 for count in self._matched(candidates, request)]

    def cached_tokens(self, candidates: Candidates, request: Arrival) -> list[int]:
        """Return how many tokens of the prompt each endpoint is believed to have."""
        return [count * self._block_tokens for count in self._matched(candidates, request)]

    def add(self, backend: int, request: Arrival, capacity: int = INDEXED_BLOCKS) -> None:
        """Note that the request goes there; the index keeps `capacity` blocks of that endpoint."""
        blocks = self._blocks.setdefault(backend, OrderedDict())
        for block in self._prompt_blocks(request):
            blocks[block] = None
            blocks.move_to_end(block)
        while len(blocks) > capacity:
            blocks.popitem(last=False)

    def _matched(self, candidates: Candidates, request: Arrival) -> list[int]:
        prompt = self._prompt_blocks(request)
        counts = []
        for candidate in candidates:
            blocks = self._blocks.get(candidate.backend, ())
            counts.append(
                next((number for number, block in enumerate(prompt) if block not in blocks), len(prompt))
            )
        return counts

    def _prompt_blocks(self, request: Arrival) -> Sequence[int]:
        """Return the blocks by the last engine's block in each: its number stands for all before it, too."""
        each = self._block_tokens // DEFAULT_BLOCK_SIZE
        return request.content[each - 1 : self._full_blocks(request) * each : each]

    def _full_blocks(self, request: Arrival) -> int:
        return min(request.prompt_tokens // self._block_tokens, self._max_blocks)


class DefaultProfile(BestScore):
    """The picker's default profile: queue 2, KV cache 2, prefix 3."""

    needs_gauges = True

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self._index = PrefixIndex()

    def scores(self, candidates: Candidates, request: Arrival) -> list[float]:
        """Return the sums by weight."""
        prefixes = [0.0] * len(candidates)
        if request.content:
            prefixes = self._index.scores(candidates, request)
        scores = zip(queue_scores(candidates), kv_cache_scores(candidates), prefixes, strict=True)
        return [
            QUEUE_WEIGHT * queue + KV_CACHE_WEIGHT * kv_cache + PREFIX_WEIGHT * prefix
            for queue, kv_cache, prefix in scores
        ]

    def choose(self, request_id: int, request: Arrival, candidates: Candidates, now_s: float) -> int:
        """Return one of the best, and expect the prompt in its cache."""
        chosen = super().choose(request_id, request, candidates, now_s)
        if request.content:
            self._index.add(chosen, request)
        return chosen


class TokenLoad(BestScore):
    """The token-load scorer alone: the fewest own tokens in flight."""

    def scores(self, candidates: Candidates, request: Arrival) -> list[float]:
        """Return the scorer's."""
        return token_load_scores(candidates, request.prompt_tokens)


class ActiveRequest(BestScore):
    """The active-request scorer alone: the same choices as those of least in flight."""

    def scores(self, candidates: Candidates, request: Arrival) -> list[float]:
        """Return the scorer's."""
        return active_request_scores(candidates)
