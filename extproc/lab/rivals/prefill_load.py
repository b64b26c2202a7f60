"""What rivals that count prompt tokens know: which are sent and not computed yet, and which are cached where.

A prompt is computed when its response begins, or when its request fails before that. A router believes each
prompt to be in the prefix cache where it was sent, as the newest of as many blocks as the KV cache has.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from extproc.lab.engine.engine_profile import DEFAULT_BLOCK_SIZE
from extproc.lab.rivals.counting import BestScore
from extproc.lab.rivals.endpoint_picker import INDEXED_BLOCKS, PrefixIndex
from extproc.lab.rivals.policy import Candidate, Ended
from extproc.lab.traffic.arrivals import Arrival


class LeastPrefill(BestScore):
    """The backend with the largest score; the size of its KV cache is scraped."""

    needs_gauges = True

    def __init__(self, index: PrefixIndex, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self.index = index
        self._queued: defaultdict[int, int] = defaultdict(int)
        self._open: dict[int, tuple[int, int]] = {}

    def choose(self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float) -> int:
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

    def queued(self, candidates: Sequence[Candidate]) -> list[int]:
        """Return how many prompt tokens of this router each candidate has still to compute."""
        return [self._queued[candidate.backend] for candidate in candidates]

    def uncached(self, candidates: Sequence[Candidate], request: Arrival) -> list[int]:
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
