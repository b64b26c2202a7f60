"""Which backend was sent which beginning of a prompt, and so has it in its KV cache, it is to be expected.

An engine keeps the KV cache of what it has computed until it needs the memory, and forgets what was used the
longest ago (Kwon et al., "PagedAttention", SOSP 2023, and vLLM's automatic prefix caching). So of each block
of a prompt (`request.prefix`) is noted to whom it was sent, and when: by a clock of the backend that counts
the tokens which its cache has had to take. What the cache cannot hold any more by that clock counts as
forgotten, as does all that a backend was sent before it was restarted.

Others may use the server too, so this is for an estimate of what a request has to wait for, and for nothing
else. A server that never reports a hit where there should have been many has no such cache.

Memory is bounded: `MAX_NOTES` pairs of a block and a backend, of at most 460 bytes each; beyond that the
blocks are forgotten that were sent the longest ago.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from extproc.fleet.signals import Signals

MAX_NOTES = 1 << 16
"""Guessed: 30 MB, which know 500 conversations of 4 KB on each of 16 backends."""

USUAL_CACHE_TOKENS = 100_000.0
"""Guessed: the KV cache of a server that does not tell; that of an 8B model on a device with 40 GB or so."""

DOUBTED_TOKENS = 16_384.0
"""Guessed: so many tokens that should have been in the cache, and no hit, tell that there is none."""


@dataclass(slots=True)
class _Cache:
    """One backend's: its clock, its size, since when it has not been emptied, and its last counters.

    What was sent before `oldest`, by the clock, is forgotten.
    """

    clock: float = 0.0
    oldest: float = 0.0
    size: float = USUAL_CACHE_TOKENS
    filled_from: float = 0.0
    expected_tokens: float = 0.0
    has_hits: bool = True
    prompt_tokens_total: float = 0.0
    generation_tokens_total: float = inf

    def take(self, tokens: float) -> None:
        """It is used for other tokens."""
        self.clock += tokens
        is_there = self.has_hits or self.expected_tokens <= DOUBTED_TOKENS
        self.oldest = max(self.filled_from, self.clock - self.size) if is_there else inf

    def empty(self) -> None:
        """Whatever comes from now on is there, and nothing else."""
        self.filled_from = self.clock + 1.0
        self.expected_tokens = 0.0
        self.generation_tokens_total = inf
        self.take(1.0)

    def scraped(self, signals: Signals) -> None:
        if signals.prompt_tokens_total is not None:
            if signals.prompt_tokens_total < self.prompt_tokens_total:
                self.empty()
            self.prompt_tokens_total = signals.prompt_tokens_total
        if signals.prefix_hits_total is not None:
            self.has_hits = signals.prefix_hits_total > 0
        if signals.kv_cache_tokens is not None:
            self.size = signals.kv_cache_tokens
        generated_tokens = 0.0
        if signals.generation_tokens_total is not None:
            generated_tokens = max(0.0, signals.generation_tokens_total - self.generation_tokens_total)
            self.generation_tokens_total = signals.generation_tokens_total
        self.take(generated_tokens)


class SentPrefixes:
    """What the backends of the fleet were sent, by slot."""

    def __init__(self, max_notes: int = MAX_NOTES) -> None:
        self._max_notes = max_notes
        self._notes: OrderedDict[int, dict[int, float]] = OrderedDict()
        self._count = 0
        self._caches: defaultdict[int, _Cache] = defaultdict(_Cache)

    def __len__(self) -> int:
        """How many pairs of a block and a backend are known."""
        return self._count

    def sent(self, slot: int, chain: Sequence[int], tokens: float, cached_tokens: float) -> None:
        """A prompt of so many tokens was sent there, of which so many are expected to be in its cache."""
        cache = self._caches[slot]
        cache.expected_tokens += cached_tokens
        cache.take(tokens - cached_tokens)
        notes, clock = self._notes, cache.clock
        for block in reversed(chain):  # the first one is then the newest, and is forgotten last
            holders = notes.get(block)
            if holders is None:
                notes[block] = {slot: clock}
                self._count += 1
            else:
                notes.move_to_end(block)
                self._count += slot not in holders
                holders[slot] = clock
        while self._count > self._max_notes:
            self._count -= len(notes.popitem(last=False)[1])

    def scraped(self, slot: int, signals: Signals) -> None:
        """What a backend tells: what it has generated takes room too, and a restart empties the cache."""
        self._caches[slot].scraped(signals)

    def forget(self, slot: int) -> None:
        """Another backend takes the slot."""
        clock = self._caches[slot].clock + 1.0
        self._caches[slot] = _Cache(clock, oldest=clock, filled_from=clock)

    def blocks_at(self, chain: Sequence[int]) -> Mapping[int, int]:
        """How many blocks of a prompt are expected where: by slot, of those that know any.

        Who knows a block knows all before it, so nobody is new where there are not more than were found.
        """
        notes, caches = self._notes, self._caches
        begun = notes.get(chain[0]) if chain else None
        if begun is None:
            return {}
        live = sum(clock >= caches[slot].oldest for slot, clock in begun.items())
        found: dict[int, int] = {}
        for number in range(len(chain), 0, -1):
            if len(found) == live:
                break
            holders = notes.get(chain[number - 1])
            if holders is not None and len(holders) > len(found):
                for slot, clock in holders.items():
                    if slot not in found and clock >= caches[slot].oldest:
                        found[slot] = number
        return found
