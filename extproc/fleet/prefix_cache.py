"""The blocks that one backend's prefix cache can still hold, by a clock that counts the tokens it has had
to take.

An engine keeps the KV cache of what it has computed until it needs the memory, and forgets what was used the
longest ago (Kwon et al., "PagedAttention", SOSP 2023, and vLLM's automatic prefix caching). Blocks sent
before `oldest`, by the clock, count as forgotten, as does everything sent before a restart of the server.

Other routers may use the server too, so this serves an estimate of the wait, and nothing else. A server that
never reports a hit where there should have been many has no such cache. Where a response says how many tokens
were found, less than that is expected the next time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import msgspec

from extproc.fleet.signals import Signals

USUAL_CACHE_TOKENS = 100_000.0
"""Guessed: the KV cache of a server that does not tell; that of an 8B model on a device with 40 GB or so."""

DOUBTED_TOKENS = 16_384.0
"""Guessed: this many tokens that should have been in the cache, and no hit, tell that there is none."""


FOUND_WEIGHT = 0.1
"""Guessed: the share of the newest response in `found_share`."""

LEAST_FOUND = 0.05
"""Guessed: what is expected is never nothing, so that a cache that works again is noticed."""


class SentPrompt(msgspec.Struct, frozen=True):
    """A prompt that was sent: the blocks that its backend was not sent before, and the time by its clock."""

    new_blocks: Sequence[int]
    clock: float
    tokens: float
    cached_tokens: float


@dataclass(slots=True)
class PrefixCache:
    """The clock, the size in tokens, since when it has not been emptied, and the server's last counters.

    `found_share` is the share of the tokens that should be there which is really found, 1 until it is known.
    """

    clock: float = 0.0
    oldest: float = 0.0
    size: float = USUAL_CACHE_TOKENS
    filled_from: float = 0.0
    expected_tokens: float = 0.0
    has_hits: bool = True
    found_share: float = 1.0
    prompt_tokens_total: float = 0.0
    generation_tokens_total: float = inf

    def sent(self, tokens: float, cached_tokens: float) -> None:
        """Note a prompt of `tokens`, of which `cached_tokens` are expected to be held already."""
        self.expected_tokens += cached_tokens
        self._take(tokens - cached_tokens)

    def take_back(self, tokens: float, cached_tokens: float) -> None:
        """Note that a prompt was not computed after all."""
        self.expected_tokens = max(0.0, self.expected_tokens - cached_tokens)
        self.clock = max(self.filled_from, self.clock - (tokens - cached_tokens))
        self._take(0.0)

    def found(self, expected_tokens: float, cached_tokens: float) -> None:
        """Learn from a response that says how many tokens were found, where `expected_tokens` were."""
        if cached_tokens > 0:
            self.has_hits = True
        if expected_tokens > 0:
            seen = min(1.0, self.found_share * cached_tokens / expected_tokens)
            share = self.found_share + FOUND_WEIGHT * (seen - self.found_share)
            self.found_share = max(LEAST_FOUND, share)

    def scraped(self, signals: Signals) -> None:
        """Follow the server's counters: generated tokens take room, a restart or sleep empties the cache."""
        if signals.prompt_tokens_total is not None:
            if signals.prompt_tokens_total < self.prompt_tokens_total or signals.is_asleep:
                self._empty()
            self.prompt_tokens_total = signals.prompt_tokens_total
        if signals.prefix_hits_total is not None:
            self.has_hits = signals.prefix_hits_total > 0
        if signals.kv_cache_tokens is not None:
            self.size = signals.kv_cache_tokens
        generated_tokens = 0.0
        if signals.generation_tokens_total is not None:
            # More than it holds empties it, whatever the counter says.
            grown_tokens = signals.generation_tokens_total - self.generation_tokens_total
            generated_tokens = min(self.size + 1.0, max(0.0, grown_tokens))
            self.generation_tokens_total = signals.generation_tokens_total
        self._take(generated_tokens)

    def _take(self, tokens: float) -> None:
        self.clock += tokens
        if self.has_hits or self.expected_tokens <= DOUBTED_TOKENS:
            held_from = self.clock - self.size
            self.oldest = held_from if held_from > self.filled_from else self.filled_from
        else:
            self.oldest = inf

    def _empty(self) -> None:
        self.filled_from = self.clock + 1.0
        self.expected_tokens = 0.0
        self.generation_tokens_total = inf
        self._take(1.0)
