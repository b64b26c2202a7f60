"""One simulated server of the fleet: its engine, where that is in virtual time, and what it has done.

The server takes the engine's runs. Its clock is the ticks since it was last idle: whole numbers, so that a
run that was shortened by an arrival ends when the same iterations one by one would have.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from extproc.lab.engine.decoders import Content
from extproc.lab.engine.engine import Engine
from extproc.lab.engine.engine_profile import EngineLimits, EngineProfile
from extproc.lab.engine.run import TICK_S, TICKS_PER_S, Run, RunResult

Pace = Callable[[float], float]
"""How fast a machine is at some time, in shares of its speed."""


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """A machine with its limits, and when it is there; the profile's speed is the machine's.

    It is up but for the time from `fails_s` to `recovers_s`.
    """

    name: str
    profile: EngineProfile
    limits: EngineLimits
    joins_s: float = 0.0
    leaves_s: float | None = None
    fails_s: float | None = None
    recovers_s: float = 0.0

    def engine(self) -> Engine:
        """Return a new engine, without work."""
        return Engine(self.profile, self.limits)

    def present_share(self, duration_s: float) -> float:
        """Return the share of the time from 0 to `duration_s` at which it serves requests."""
        present_s = max(0.0, min(self.leaves_s or duration_s, duration_s) - self.joins_s)
        if self.fails_s is not None:
            present_s -= max(0.0, min(self.recovers_s, duration_s) - self.fails_s)
        return present_s / duration_s


NO_ADAPTERS: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())


class Gauges(msgspec.Struct, frozen=True):
    """The content of a scrape: gauges, and totals since the start.

    `engine_ttft_s` is the sum of `ttfts` times from entering the engine to the first token, as vLLM's own
    histogram has it; `decode_s` the sum of the times from there to the last token of `finished` requests.
    `adapters` are those whose requests run, and those whose requests wait.
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
    prefix_hits: int
    kv_cache_tokens: int
    adapters: tuple[frozenset[int], frozenset[int]] = NO_ADAPTERS


@dataclass(slots=True, eq=False)
class Server:
    """An engine that runs as long as it has work. `run_ends_s` is None while it has none.

    With a `pace` the machine's speed changes between two runs of the engine.
    """

    spec: ServerSpec
    _pace: Pace | None = None
    is_up: bool = True
    run_ends_s: float | None = None
    submitted: int = 0
    engine: Engine = field(init=False)
    overhead_s: Callable[[int], float] = field(init=False)  # of a prompt: its times on top of the engine's
    _begun_s: float = 0.0  # when it was last idle
    _begun_ticks: int = 0  # from then to the beginning of its run,
    _ends_ticks: int = 0  # and to its end
    _busy_ticks: int = 0  # before it was last idle
    _engine_ttft_s: float = 0.0
    _ttfts: int = 0
    _decode_s: float = 0.0
    _finished: int = 0

    def __post_init__(self) -> None:
        self.engine = self.spec.engine()
        self.overhead_s = self.spec.profile.overhead_s

    @property
    def busy_s(self) -> float:
        """Time spent computing, but for the run under way."""
        return (self._busy_ticks + self._begun_ticks) * TICK_S

    def submit(
        self,
        request_id: str,
        prompt_tokens: int,
        output_tokens: int,
        now_s: float,
        content: Content[int] = (),
        adapter: int = 0,
    ) -> float | None:
        """Take a request; `run_ends_s` where it has become another by that."""
        engine = self.engine
        engine.submit(request_id, prompt_tokens, output_tokens, now_s, content, adapter)
        self.submitted += 1
        run = engine.run
        if run is None:
            self._begun_s = now_s
            self._begin(now_s)
            return self.run_ends_s
        if run.steps == 1 or not engine.may_admit():
            return None
        return self._shorten(run, now_s)

    def end_run(self, now_s: float) -> RunResult:
        """End the run that is due now, and begin the next one if there is anything to do."""
        result = self.engine.end_run(now_s)
        if ttfts_s := result.ttfts_s:
            self._engine_ttft_s += sum(ttfts_s)
            self._ttfts += len(ttfts_s)
        self._begin(now_s)
        return result

    def fail(self, now_s: float) -> None:
        """Lose everything; a restart sets `is_up`."""
        if (run := self.engine.run) is not None:
            self._ends_ticks = self._begun_ticks + run.ticks(self._step_under_way(run, now_s))
            self._rest()
        self.engine = self.spec.engine()
        self.is_up = False
        self.submitted += 1  # A reader of its state has to look again.
        self._engine_ttft_s = self._decode_s = 0.0
        self._ttfts = self._finished = 0

    def finished(self, decode_s: float) -> None:
        """Note that a request has ended, and the time since its first token."""
        self._decode_s += decode_s
        self._finished += 1

    def gauges(self, now_s: float) -> Gauges:
        """Return the gauges that `/metrics` shows now."""
        engine = self.engine
        steps = 0 if engine.run is None else self._step_under_way(engine.run, now_s) - 1
        return Gauges(
            engine.running,
            engine.waiting,
            engine.kv_cache_fraction_in(steps),
            engine.counters.prompt_tokens,
            engine.counters.generation_tokens + steps * engine.decoding,
            self._engine_ttft_s,
            self._ttfts,
            self._decode_s,
            self._finished,
            engine.counters.prefix_hits,
            engine.limits.kv_cache_tokens,
            NO_ADAPTERS if engine.limits.adapter_places is None else engine.adapters,
        )

    def copied(self) -> "Server":
        """Return a copy that goes on from here by itself."""
        twin = copy.copy(self)
        twin.engine = self.engine.copied()
        return twin

    def _begin(self, now_s: float) -> None:
        run = self.engine.begin_run(now_s)
        if run is None:
            self._rest()
        else:
            if self._pace is not None:
                pace = self._pace(now_s)
                run.first, run.growth = round(run.first / pace), round(run.growth / pace)
            begun_ticks = self._begun_ticks = self._ends_ticks
            ends_ticks = self._ends_ticks = begun_ticks + run.ticks(run.steps)
            self.run_ends_s = self._begun_s + ends_ticks * TICK_S

    def _rest(self) -> None:
        self._busy_ticks += self._ends_ticks
        self._begun_ticks = self._ends_ticks = 0
        self.run_ends_s = None

    def _shorten(self, run: Run, now_s: float) -> float | None:
        """Let the run end with the iteration that is under way."""
        steps = self._step_under_way(run, now_s)
        if steps == run.steps:
            return None
        run.steps = steps
        self._ends_ticks = self._begun_ticks + run.ticks(steps)
        self.run_ends_s = self._begun_s + self._ends_ticks * TICK_S
        return self.run_ends_s

    def _step_under_way(self, run: Run, now_s: float) -> int:
        """Return the first iteration of the run, counted from 1, that does not end before now."""
        steps = run.step_at((now_s - self._begun_s) * TICKS_PER_S - self._begun_ticks)
        begun_s, begun_ticks, ticks = self._begun_s, self._begun_ticks, run.ticks
        while steps < run.steps and begun_s + (begun_ticks + ticks(steps)) * TICK_S < now_s:
            steps += 1
        while steps > 1 and begun_s + (begun_ticks + ticks(steps - 1)) * TICK_S >= now_s:
            steps -= 1
        return steps
