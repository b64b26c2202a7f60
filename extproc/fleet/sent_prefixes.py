"""Tracks which prompt prefixes were sent to which backend, to estimate what its prefix cache holds.

For each block of a prompt (`request.prefix`) it is noted which backends were sent it, and when: by the clock
of each backend's `PrefixCache`, which also tells what has been forgotten since.

Memory is bounded: `MAX_NOTES` pairs of a block and a backend, of at most 460 bytes each; beyond that the
blocks that were sent the longest ago are dropped. A backend that leaves is not found from then on, and its
notes are swept out in slices: one walk over all of them would hold the event loop up for 30 ms (measured).
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from math import inf

from extproc.fleet.backend import Backend
from extproc.fleet.prefix_cache import SentPrompt
from extproc.request.prefix import BLOCK_ENDS
from extproc.request.request import Request

MAX_NOTES = 1 << 16
"""Guessed: 30 MB, which know 500 conversations of 4 KB on each of 16 backends."""
SWEPT_BLOCKS = 2048
"""In one slice: two milliseconds (measured)."""


class SentPrefixes:
    """The notes of the whole fleet; `len` is the number of pairs of a block and a backend."""

    def __init__(self, max_notes: int = MAX_NOTES) -> None:
        self._max_notes = max_notes
        self._notes: OrderedDict[int, dict[Backend, float]] = OrderedDict()
        self._count = 0
        self._leaving: Set[Backend] = frozenset()
        self._gone: Set[Backend] = frozenset()
        self._unswept: list[int] = []

    def __len__(self) -> int:
        return self._count

    def sent(self, backend: Backend, chain: Sequence[int], tokens: float, cached_tokens: float) -> SentPrompt:
        """Note a prompt of `tokens` sent there, of which `cached_tokens` are expected in its cache."""
        backend.cache.sent(tokens, cached_tokens)
        notes, clock, count = self._notes, backend.cache.clock, self._count
        for block in reversed(chain):  # the first one is then the newest, and is dropped last
            holders = notes.get(block)
            if holders is None:
                notes[block] = {backend: clock}
                self._count += 1
            else:
                notes.move_to_end(block)
                self._count += backend not in holders
                holders[backend] = clock
        new_blocks = chain[len(chain) - (self._count - count) :]
        while self._count > self._max_notes:
            self._count -= len(notes.popitem(last=False)[1])
        return SentPrompt(new_blocks, clock, tokens, cached_tokens)

    def take_back(self, backend: Backend, sent: SentPrompt) -> None:
        """Forget a prompt that was not computed; what was sent before it, or again since, stays."""
        backend.cache.take_back(sent.tokens, sent.cached_tokens)
        for block in sent.new_blocks:
            holders = self._notes.get(block)
            if holders is not None and holders.get(backend) == sent.clock:
                del holders[backend]
                self._count -= 1
                if not holders:
                    del self._notes[block]

    def drop(self, gone: Set[Backend]) -> None:
        """Find backends that have left no more; `sweep` forgets them."""
        self._gone |= gone
        for backend in gone:
            backend.cache.oldest = inf

    def sweep(self) -> bool:
        """Take departed backends out of some more blocks; True where some may be left."""
        if not self._unswept and self._gone:
            self._leaving, self._gone = self._gone, frozenset()
            # In any order: in that of an OrderedDict it takes many times as long.
            self._unswept = list(dict.__iter__(self._notes))
        notes, leaving = self._notes, self._leaving
        for block in self._unswept[-SWEPT_BLOCKS:]:
            holders = notes.get(block, {})
            for backend in [each for each in holders if each in leaving]:
                del holders[backend]
                self._count -= 1
            if not holders:
                notes.pop(block, None)
        del self._unswept[-SWEPT_BLOCKS:]
        if not self._unswept:
            self._leaving = frozenset()
        return bool(self._unswept or self._gone)

    def cached_tokens(
        self, request: Request, among: Collection[Backend] | None = None
    ) -> Mapping[Backend, float]:
        """Return how many of the prompt's tokens each of some (or all) backends need not compute, if any."""
        found: dict[Backend, float] = {}
        for blocks, holding in self._deepest(request.prefix, among):
            tokens = BLOCK_ENDS[blocks - 1] * (request.input_tokens / request.prompt_bytes)
            for backend in holding:
                if backend not in found:
                    found[backend] = tokens * backend.cache.found_share
        return found

    def blocks_at(
        self, chain: Sequence[int], among: Collection[Backend] | None = None
    ) -> Mapping[Backend, int]:
        """Return how many blocks of a prompt each of some (or all) backends is expected to hold, if any."""
        found: dict[Backend, int] = {}
        for blocks, holding in self._deepest(chain, among):
            for backend in holding:
                found.setdefault(backend, blocks)
        return found

    def _deepest(
        self, chain: Sequence[int], among: Collection[Backend] | None
    ) -> Iterator[tuple[int, list[Backend]]]:
        """Yield numbers of blocks, and the backends that hold as many, the largest number first.

        A backend that holds block *n* also holds all earlier blocks, so the deepest one says all; it may come
        again with those. A block adds backends only where more hold it than the one looked at before, and
        none where all do that hold the first.
        """
        notes = self._notes
        begun = notes.get(chain[0]) if chain else None
        if begun is None:
            return
        looked_at, most = 0, len(begun)
        for number in range(len(chain), 0, -1):
            holders = notes.get(chain[number - 1])
            if holders is not None and len(holders) > looked_at:
                looked_at = len(holders)
                yield number, _holding(holders, among)
                if looked_at >= most:
                    return

    def holders(self, chain: Sequence[int], most: int) -> Sequence[Backend]:
        """Return at most this many backends that hold more of a prompt than all others do."""
        found: dict[Backend, None] = {}
        for block in reversed(chain):
            holders = self._notes.get(block, {})
            if len(holders) > most:
                break
            found.update(dict.fromkeys(_holding(holders, None)))
        return list(found)[:most]


def _holding(holders: Mapping[Backend, float], among: Collection[Backend] | None) -> list[Backend]:
    """Return which of some (or all) backends still hold a block that these `holders` were sent."""
    if among is None or len(holders) <= len(among):
        return [backend for backend, clock in holders.items() if clock >= backend.cache.oldest]
    return [backend for backend in among if holders.get(backend, -inf) >= backend.cache.oldest]
