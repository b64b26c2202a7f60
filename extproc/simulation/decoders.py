"""The sequences of a batch that decode: one token each in every iteration, so a few sums stand for them all.

With n of them an iteration brings n tokens and reads n tokens more of KV cache than the one before. A
sequence needs a new block whenever its computed tokens fill the ones it has, which is every `block_size`
iterations; so it is enough to count the sequences by the remainder at which they do. What a sequence has
become is worked out when it leaves. Any number of iterations costs the same.
"""

import copy
from collections.abc import Mapping
from heapq import heapify, heappop, heappush

from extproc.simulation.sequence import NOT_DECODING, Sequence

_NOBODY: list[Sequence] = []


class Decoders:
    """`steps` counts iterations since the start, `tokens` what all of the `count` sequences have computed."""

    __slots__ = ("_at_block_end", "_block_size", "_by_end", "count", "steps", "tokens")

    def __init__(self, block_size: int) -> None:
        self.steps = 0
        self.count = 0
        self.tokens = 0
        self._block_size = block_size
        self._at_block_end = [0] * block_size
        self._by_end: list[tuple[int, int, Sequence]] = []

    def join(self, sequence: Sequence) -> None:
        """From the next iteration on; all but its newest token is computed."""
        end = self.steps + sequence.output_tokens - sequence.produced_tokens
        self.count += 1
        self.tokens += sequence.computed_tokens
        self._at_block_end[(self.steps - sequence.computed_tokens) % self._block_size] += 1
        sequence.last_step = end
        heappush(self._by_end, (end, sequence.place, sequence))

    def advance(self, steps: int) -> int:
        """So many iterations have ended; how many tokens they brought."""
        tokens = steps * self.count
        self.steps += steps
        self.tokens += tokens
        return tokens

    def leave(self, sequence: Sequence, is_step_under_way: bool) -> None:
        """Take a sequence out before its end, and note how far it has come."""
        self._forget(sequence)
        held = sequence.computed_tokens + is_step_under_way
        sequence.blocks = -(-held // self._block_size)

    def finished(self) -> list[Sequence]:
        """Take those out that have all their tokens, oldest first."""
        by_end = self._by_end
        if not by_end or by_end[0][0] != self.steps:
            return _NOBODY
        gone: list[Sequence] = []
        while by_end and by_end[0][0] == self.steps:
            end, _, sequence = heappop(by_end)
            if sequence.last_step == end:
                self._forget(sequence)
                sequence.blocks = -(-sequence.computed_tokens // self._block_size)
                gone.append(sequence)
        return gone

    def new_blocks(self) -> int:
        """How many blocks the next iteration needs."""
        return self._at_block_end[self.steps % self._block_size]

    def new_blocks_of(self, first: int, steps: int) -> int:
        """How many `steps` iterations need from number `first` on, if the next one is number 0."""
        cycles, rest = divmod(steps, self._block_size)
        begin = (self.steps + first) % self._block_size
        end = begin + rest
        by_remainder = self._at_block_end
        needed = sum(by_remainder[begin:end])
        if end > self._block_size:
            needed += sum(by_remainder[: end - self._block_size])
        return cycles * self.count + needed

    def run_length(self, most: int, free_blocks: int) -> int:
        """Iterations until one of them has all its tokens, at most so many, and as long as there is memory.

        The first of them has its blocks already.
        """
        by_end = self._by_end
        while by_end[0][2].last_step != by_end[0][0]:
            heappop(by_end)  # It has left, and if it is back it ends later.
        steps = min(by_end[0][0] - self.steps, most)
        if self.count * (steps // self._block_size + 1) <= free_blocks:
            return steps
        for number in range(1, steps):
            free_blocks -= self._at_block_end[(self.steps + number) % self._block_size]
            if free_blocks < 0:
                return number
        return steps

    def copied(self, twins: Mapping[Sequence, Sequence]) -> "Decoders":
        """The same with other sequences in the place of these."""
        twin = copy.copy(self)
        twin._at_block_end = list(self._at_block_end)
        twin._by_end = [
            (end, place, twins[sequence])
            for end, place, sequence in self._by_end
            if sequence.last_step == end
        ]
        heapify(twin._by_end)
        return twin

    def _forget(self, sequence: Sequence) -> None:
        computed = sequence.prompt_tokens + sequence.output_tokens - 1 - (sequence.last_step - self.steps)
        self.count -= 1
        self.tokens -= computed
        self._at_block_end[(self.steps - computed) % self._block_size] -= 1
        sequence.computed_tokens = computed
        sequence.produced_tokens = computed + 1 - sequence.prompt_tokens
        sequence.last_step = NOT_DECODING
