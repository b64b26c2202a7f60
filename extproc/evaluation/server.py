"""One simulated server of the fleet: its engine, where that is in time, and what it has done."""

from dataclasses import dataclass

import msgspec

from extproc.simulation.engine import Engine, StepResult
from extproc.simulation.limits import EngineLimits
from extproc.simulation.profile import EngineProfile


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """A machine with its limits; the profile's speed is the machine's."""

    name: str
    profile: EngineProfile
    limits: EngineLimits

    def engine(self) -> Engine:
        """A new engine, without work."""
        return Engine(self.profile, self.limits)


class Gauges(msgspec.Struct, frozen=True):
    """What a scrape reads: gauges, and totals since the start.

    `engine_ttft_s` is the sum of `ttfts` times from entering the engine to the first token, as vLLM's own
    histogram has it; `decode_s` the sum of the times from there to the last token of `finished` requests.
    """

    running: int
    waiting: int
    kv_cache_fraction: float
    prompt_tokens: int
    generation_tokens: int
    engine_ttft_s: float
    ttfts: int
    decode_s: float
    finished: int


class Server:
    """An engine that steps as long as it has work. `step_ends_s` is None while it has none."""

    def __init__(self, spec: ServerSpec) -> None:
        self.spec = spec
        self.engine = spec.engine()
        self.step_ends_s: float | None = None
        self.submitted = 0
        self.busy_s = 0.0
        self._engine_ttft_s = 0.0
        self._ttfts = 0
        self._decode_s = 0.0
        self._finished = 0

    def submit(self, request_id: str, prompt_tokens: int, output_tokens: int, now_s: float) -> bool:
        """Take a request; True where the server was idle, and its first step has begun."""
        self.engine.submit(request_id, prompt_tokens, output_tokens, now_s)
        self.submitted += 1
        if self.step_ends_s is not None:
            return False
        return self._begin_step(now_s)

    def step(self, now_s: float) -> StepResult:
        """End the step that is due now, and begin the next one if there is anything to do."""
        result = self.engine.end_step(now_s)
        self._engine_ttft_s += sum(result.ttfts_s)
        self._ttfts += len(result.ttfts_s)
        self._begin_step(now_s)
        return result

    def finished(self, decode_s: float) -> None:
        """A request has ended, so long after its first token."""
        self._decode_s += decode_s
        self._finished += 1

    def gauges(self) -> Gauges:
        """What `/metrics` says now."""
        engine = self.engine
        return Gauges(
            engine.running,
            engine.waiting,
            engine.kv_cache_fraction,
            engine.counters.prompt_tokens,
            engine.counters.generation_tokens,
            self._engine_ttft_s,
            self._ttfts,
            self._decode_s,
            self._finished,
        )

    def _begin_step(self, now_s: float) -> bool:
        duration_s = self.engine.begin_step(now_s)
        if duration_s is None:
            self.step_ends_s = None
            return False
        self.busy_s += duration_s
        self.step_ends_s = now_s + duration_s
        return True
