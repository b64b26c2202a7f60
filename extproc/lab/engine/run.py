"""A run, and its results: iterations of an engine in which only the length of the sequences changes.

With a constant batch each iteration takes longer than the one before by the same amount, since each sequence
has one token more to read; so the end of any of them has a formula. Times are whole picoseconds: their sums
are exact, and a run ends at the same moment as its iterations one by one.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

TICKS_PER_S = 10**12
TICK_S = 1 / TICKS_PER_S


class Run(msgspec.Struct, gc=False):
    """`steps` iterations; the first takes `first` ticks, each further one `growth` more than the last."""

    steps: int
    first: int
    growth: int

    def ticks(self, steps: int) -> int:
        """Return how long this many of its iterations take."""
        return steps * self.first + self.growth * (steps * (steps - 1) // 2)

    def step_at(self, ticks: float) -> int:
        """Return about which step is under way after some ticks, from 1 on; rounding may make it one off."""
        if not self.growth:
            step = int(ticks / self.first) + 1
        else:
            half = self.first / self.growth - 0.5
            step = int(math.sqrt(half * half + 2 * ticks / self.growth) - half) + 1
        return 1 if step < 1 else self.steps if step > self.steps else step


class FinishReason(StrEnum):
    """How a request left the engine, in vLLM's words; STOP is for requests without output tokens."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(slots=True)
class EngineCounters:
    """Totals since the start; prompt tokens count once, when the prompt has been computed.

    `prefix_queries` are the prompt tokens looked up in the prefix cache, `prefix_hits` those found there.
    `adapter_waits` are requests that could have run but for a place for their adapter.
    """

    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    adapter_waits: int = 0
    finished: dict[FinishReason, int] = field(default_factory=lambda: dict.fromkeys(FinishReason, 0))


class RunResult(msgspec.Struct, gc=False):
    """The result of a run, by request, oldest first: those whose prefill is done, and those that finished.

    `begun` have got a token by it: their first one, or if they had been preempted a further one. `ttfts_s`
    holds one time per prompt completed, counted from entering the engine as vLLM's own histogram does: what
    a request spent stuck before the engine is not in it.
    """

    begun: list[str] = []
    finished: list[str] = []
    ttfts_s: list[float] = []


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of one iteration: the requests that got a token, those that finished, by id, oldest first.

    `ttfts_s` is as in `RunResult`.
    """

    produced: tuple[str, ...]
    finished: tuple[str, ...]
    ttfts_s: tuple[float, ...]
