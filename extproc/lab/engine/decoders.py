"""The sequences of a simulated engine, and those that decode: a few sums stand for all of these.

Each of those gets one token in every iteration. With n of them an iteration brings n tokens and reads n
tokens more of KV cache than the one before. A sequence needs a new block whenever its computed tokens fill
the ones it has, which is every `block_size` iterations; so it is enough to count the sequences by the
remainder at which they do. The state of a sequence is worked out when it leaves. Any number of iterations
costs the same.
"""

import collections.abc
import copy
from collections.abc import Mapping
from heapq import heapify, heappop, heappush

import msgspec

Content = collections.abc.Sequence
"""Names of full blocks; a Sequence, in this module, is a request."""
NOT_DECODING = -1


class Sequence(msgspec.Struct, eq=False, gc=False):
    """A request's progress; `blocks` is the KV memory it holds, `pinned` of them are shared by content.

    As in vLLM's v1 scheduler there is no prefill phase and no decode phase, only a distance between the
    tokens that are known (prompt and output so far) and those whose KV cache is computed. Chunked prefill,
    decoding and recomputation after a preemption all close that distance.

    `total_tokens` are those of the prompt and of all the output, `known_tokens` of the output so far.
    `content` names the full blocks of the text, prompt first, as far as others may have them too. `place` is
    the sequence's number among all that were ever admitted; `adapter` is the number of its adapter, 0 for
    the base model, and it `has_waited` where there was no place for that. While it decodes its progress is
    kept by `Decoders`, which know the iteration `last_step` that brings its last token; `known_tokens`,
    `computed_tokens` and `blocks` are then those at the time when it joined.
    """

    request_id: str
    prompt_tokens: int
    total_tokens: int
    known_tokens: int
    content: Content[int]
    entered_s: float
    computed_tokens: int = 0
    blocks: int = 0
    pinned: int = 0
    place: int = 0
    last_step: int = NOT_DECODING
    adapter: int = 0
    has_waited: bool = False


_NO_SEQUENCES: list[Sequence] = []


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
        """Add a sequence from the next iteration on; all but its newest token is computed."""
        steps, computed = self.steps, sequence.computed_tokens
        self.count += 1
        self.tokens += computed
        self._at_block_end[(steps - computed) % self._block_size] += 1
        end = sequence.last_step = steps + sequence.total_tokens - sequence.known_tokens
        heappush(self._by_end, (end, sequence.place, sequence))

    def advance(self, steps: int) -> list[Sequence]:
        """Advance by some iterations; take out the sequences that have all their tokens, oldest first."""
        now = self.steps = self.steps + steps
        self.tokens += steps * self.count
        by_end = self._by_end
        if not by_end or by_end[0][0] != now:
            return _NO_SEQUENCES
        gone = []
        while by_end and by_end[0][0] == now:
            _, _, sequence = heappop(by_end)
            self._forget(sequence)
            gone.append(sequence)
        return gone

    def leave(self, sequence: Sequence, is_step_under_way: bool) -> None:
        """Take a sequence out before its end, and note how far it has come."""
        self._by_end.remove((sequence.last_step, sequence.place, sequence))
        heapify(self._by_end)
        self._forget(sequence)
        if is_step_under_way:
            sequence.blocks = -(-(sequence.computed_tokens + 1) // self._block_size)

    def new_blocks(self) -> int:
        """Return how many blocks the next iteration needs."""
        return self._at_block_end[self.steps % self._block_size]

    def new_blocks_of(self, first: int, steps: int) -> int:
        """Return how many `steps` iterations need from number `first` on, if the next one is number 0."""
        block_size, by_remainder = self._block_size, self._at_block_end
        begin = (self.steps + first) % block_size
        end = begin + steps % block_size
        needed = steps // block_size * self.count + sum(by_remainder[begin:end])
        return needed + sum(by_remainder[: end - block_size]) if end > block_size else needed

    def run_length(self, free_blocks: int) -> int:
        """Return the iterations until one of them has all its tokens, as long as there is memory.

        The first of them has its blocks already.
        """
        steps = self._by_end[0][0] - self.steps
        if self.count * (steps // self._block_size + 1) <= free_blocks:
            return steps
        for number in range(1, steps):
            free_blocks -= self._at_block_end[(self.steps + number) % self._block_size]
            if free_blocks < 0:
                return number
        return steps

    def copied(self, twins: Mapping[Sequence, Sequence]) -> "Decoders":
        """Return the same with other sequences in the place of these."""
        twin = copy.copy(self)
        twin._at_block_end = list(self._at_block_end)
        twin._by_end = [(end, place, twins[sequence]) for end, place, sequence in self._by_end]
        return twin

    def _forget(self, sequence: Sequence) -> None:
        steps, block_size = self.steps, self._block_size
        known = sequence.known_tokens = sequence.total_tokens - (sequence.last_step - steps)
        computed = sequence.computed_tokens = known - 1
        self.count -= 1
        self.tokens -= computed
        self._at_block_end[(steps - computed) % block_size] -= 1
        sequence.blocks = -(-computed // block_size)
        sequence.last_step = NOT_DECODING
