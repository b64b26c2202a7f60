"""Conversations: each turn's prompt is all that was said before, and what an engine knows it need not read.

A conversation starts with a text that all of its kind share (a system prompt, the description of tools), and
goes on for some turns. No turn waits for an answer: the next turn comes after a time that is drawn, so that
the traffic is the same whatever the fleet makes of it. Only the conversations under way are held.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from extproc.lab.engine.decoders import Content
from extproc.lab.engine.engine_profile import DEFAULT_BLOCK_SIZE
from extproc.lab.traffic.arrivals import Arrival, Curve, times_of
from extproc.lab.traffic.workload import Workload

MAX_KINDS = 1 << 20
"""Numbers of shared texts are below, those of conversations begin here; each has 2**32 for its blocks."""


@dataclass(slots=True)
class _Conversation:
    number: int
    kind: int
    turns_left: int
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """The settings that make conversations of requests.

    A conversation has geometrically many turns, `turns` on average, and exponential pauses with mean
    `pause_s`. It begins with one of `kinds` texts of `shared_tokens`.
    """

    turns: float
    pause_s: float
    shared_tokens: int
    kinds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversations(Turns):
    """Turns at `rate` per second on average.

    The lengths are those of each turn's addition to the prompt, and of its answer. A conversation ends
    early where the context does not hold another turn.
    """

    curve: Curve
    rate: float
    duration_s: float
    lengths: Workload
    max_model_len: int

    def arrivals(self, rng: np.random.Generator) -> Iterator[Arrival]:
        """Yield the turns of `duration_s`."""
        due: list[tuple[float, int, _Conversation]] = []
        begins = times_of(self.curve, self.rate / self.turns, self.duration_s, rng)
        begin_s, number = next(begins, math.inf), 0
        while due or begin_s < math.inf:
            if due and due[0][0] <= begin_s:
                at_s, _, conversation = heappop(due)
            else:
                at_s, number = begin_s, number + 1
                conversation = self._opened(number, rng)
                begin_s = next(begins, math.inf)
            arrival = self._turn(conversation, at_s, rng)
            if arrival is None:
                continue
            yield arrival
            next_s = at_s + rng.exponential(self.pause_s)
            if conversation.turns_left and next_s < self.duration_s:
                heappush(due, (next_s, conversation.number, conversation))

    def _opened(self, number: int, rng: np.random.Generator) -> _Conversation:
        turns = int(rng.geometric(1 / self.turns))
        return _Conversation(MAX_KINDS + number, int(rng.integers(self.kinds)), turns, self.shared_tokens)

    def _turn(self, conversation: _Conversation, at_s: float, rng: np.random.Generator) -> Arrival | None:
        (added,), (answer,) = (each.tolist() for each in self.lengths.draw(rng, 1, self.max_model_len))
        prompt_tokens = conversation.tokens + added
        if prompt_tokens + answer > self.max_model_len:
            return None
        conversation.tokens = prompt_tokens + answer
        conversation.turns_left -= 1
        content = self._content(conversation)
        return Arrival(at_s, prompt_tokens, answer, content, session=conversation.number)

    def _content(self, conversation: _Conversation) -> Content[int]:
        """Return all full blocks of prompt and answer; all conversations of a kind have those of its text."""
        blocks = conversation.tokens // DEFAULT_BLOCK_SIZE
        shared = self.shared_tokens // DEFAULT_BLOCK_SIZE
        of_kind, own = conversation.kind << 32, conversation.number << 32
        return (*range(of_kind, of_kind + shared), *range(own + shared, own + blocks))
