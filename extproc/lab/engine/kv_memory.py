"""The KV memory of a simulated engine: blocks in use, and free ones that may still hold what is asked again.

As in vLLM, full blocks are known by their content and everything before it. A block that is no longer used
keeps its content at the end of one queue, in order of least recent use, from whose head new blocks are taken;
of one request the last blocks go first. A prompt that begins with known blocks does not compute these again.
Source: Kwon et al., "PagedAttention" (SOSP 2023), and vLLM's documentation of automatic prefix caching.

Without content there is nothing to look up, and a number of free blocks is all that is kept.
"""

import copy

from extproc.lab.engine.decoders import Content, Sequence


class KvMemory:
    """`free` blocks can be had at once, those with unused content included."""

    __slots__ = ("_block_size", "_cache", "free", "size")

    def __init__(self, blocks: int, block_size: int) -> None:
        self.size = blocks
        self.free = blocks
        self._block_size = block_size
        self._cache: _CachedBlocks | None = None

    def take(self, blocks: int) -> None:
        """Use blocks; there must be this many."""
        self.free -= blocks
        if self._cache is not None:
            self._cache.evict(blocks)

    def known(self, sequence: Sequence) -> tuple[int, int]:
        """Return how many of its first blocks are there, and in use; one token is left to compute."""
        if self._cache is None:
            return 0, 0
        return self._cache.known(sequence.content[: (sequence.known_tokens - 1) // self._block_size])

    def pin(self, sequence: Sequence, blocks: int) -> None:
        """Let a sequence without memory use its first blocks, all of which are there."""
        if self._cache is not None:
            self.free -= self._cache.pin(sequence.content, blocks)
        sequence.blocks = sequence.pinned = blocks
        sequence.computed_tokens = blocks * self._block_size

    def publish(self, sequence: Sequence) -> None:
        """Let others find its blocks that are full, from those on that they know already."""
        full = min(len(sequence.content), sequence.computed_tokens // self._block_size)
        if sequence.pinned < full:
            if self._cache is None:
                self._cache = _CachedBlocks(self.free)
            sequence.pinned = self._cache.publish(sequence.content, sequence.pinned, full)

    def release(self, sequence: Sequence) -> None:
        """Take all its blocks back; the content of those that are full stays."""
        if sequence.content:
            self.publish(sequence)
        unnamed = sequence.blocks - sequence.pinned
        self.free += unnamed
        if self._cache is not None:
            self._cache.add_blank(unnamed)
            self.free += self._cache.unpin(sequence.content, sequence.pinned)
        sequence.blocks = sequence.pinned = 0

    def copied(self) -> "KvMemory":
        """Return a copy that goes on from here by itself."""
        twin = copy.copy(self)
        if self._cache is not None:
            twin._cache = self._cache.copied()
        return twin


class _CachedBlocks:
    """Blocks by content: `_pins` those in use and by how many, `_idle` the queue of free ones.

    Free blocks that hold no content are `_blanks` at the head of the queue, and further on an entry whose key
    is a negative number, for some of them; every other entry is the content of one block. A dict keeps the
    order, and is copied at a tenth of the cost of an OrderedDict: a look ahead works on a copy.
    """

    def __init__(self, free_blocks: int) -> None:
        self._pins: dict[int, int] = {}
        self._idle: dict[int, int] = {}
        self._blanks = free_blocks
        self._lowest = 0  # key in use for free blocks without content

    def known(self, content: Content[int]) -> tuple[int, int]:
        known = in_use = 0
        for block in content:
            if block in self._pins:
                in_use += 1
            elif block not in self._idle:
                break
            known += 1
        return known, in_use

    def pin(self, content: Content[int], blocks: int) -> int:
        """Return how many of them were free."""
        woken = 0
        for block in content[:blocks]:
            if self._idle.pop(block, 0):
                woken += 1
                self._pins[block] = 1
            else:
                self._pins[block] += 1
        return woken

    def publish(self, content: Content[int], first: int, end: int) -> int:
        for number in range(first, end):
            block = content[number]
            if block in self._pins or block in self._idle:
                return number
            self._pins[block] = 1
        return end

    def unpin(self, content: Content[int], blocks: int) -> int:
        """Return how many of them are no longer used."""
        freed = 0
        for block in reversed(content[:blocks]):
            self._pins[block] -= 1
            if not self._pins[block]:
                del self._pins[block]
                self._idle[block] = 1
                freed += 1
        return freed

    def copied(self) -> "_CachedBlocks":
        twin = copy.copy(self)
        twin._pins, twin._idle = self._pins.copy(), self._idle.copy()
        return twin

    def evict(self, blocks: int) -> None:
        if blocks <= self._blanks:
            self._blanks -= blocks
            return
        idle, free, gone = self._idle, self._blanks, []
        for block, count in idle.items():  # from one iterator: the head of a dict is found by a search
            gone.append(block)
            free += count
            if free >= blocks:
                break
        for block in gone:
            del idle[block]
        self._blanks = free - blocks

    def add_blank(self, blocks: int) -> None:
        if not blocks:
            return
        newest = next(reversed(self._idle), 0)
        if newest < 0:
            self._idle[newest] += blocks
        elif self._idle:
            self._lowest -= 1
            self._idle[self._lowest] = blocks
        else:
            self._blanks += blocks
