"""What a simulated engine tells of its work: counters, and what an iteration or a run of them brought."""

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec


class FinishReason(StrEnum):
    """How a request left the engine, in vLLM's words; STOP is for requests without output tokens."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(slots=True)
class EngineCounters:
    """Totals since the start; prompt tokens count once, when the prompt has been computed.

    `prefix_queries` are the prompt tokens looked up in the prefix cache, `prefix_hits` those found there.
    """

    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    finished: dict[FinishReason, int] = field(default_factory=lambda: dict.fromkeys(FinishReason, 0))


class RunResult(msgspec.Struct, gc=False):
    """What a run brought, by request, oldest first: those whose prefill is done, and those that finished.

    `begun` have got a token by it: their first one, or if they had been preempted a further one. `ttfts_s`
    holds one time per prompt completed, counted from entering the engine as vLLM's own histogram does: what
    a request spent stuck before the engine is not in it.
    """

    begun: list[str] = []
    finished: list[str] = []
    ttfts_s: list[float] = []


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one iteration brought: the requests that got a token, those that finished, by id, oldest first.

    `ttfts_s` is as in `RunResult`.
    """

    produced: tuple[str, ...]
    finished: tuple[str, ...]
    ttfts_s: tuple[float, ...]
