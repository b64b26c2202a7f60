"""The simulated engine in real time: iterations last as long as modelled, tokens go out at their end."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from extproc.lab.engine.engine import Engine
from extproc.lab.engine.run import StepResult
from extproc.lab.simulated_vllm.openai import Work

MAX_LAG_S = 0.25
"""Guessed. A process that could not keep up catches up on this much at most; what lies further back is
forgotten, or the engine would run faster than its machine for as long as it had been held up."""


@dataclass(frozen=True, slots=True)
class _TokenListener:
    """The listener to a request's tokens, and the future that is set at its end."""

    on_token: Callable[[bool], None]
    done: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class EngineLoop:
    """Runs an engine against the clock; deadlines are absolute, so that timer errors do not add up.

    `speed` multiplies that of the engine's profile, and may be changed: the next iteration has the new one.
    A request comes to the engine late by `overhead_s` of its prompt tokens, as after HTTP and tokenizing.
    uvloop's timers count whole milliseconds: a token may leave half a millisecond early or late. `on_change`
    gets the time whenever the engine has changed, `on_step` the result of an iteration.
    """

    _engine: Engine
    _on_step: Callable[[StepResult], None]
    _on_change: Callable[[float], None]
    speed: float
    _overhead_s: Callable[[int], float]
    _requests: dict[str, _TokenListener] = field(default_factory=dict)
    _has_work: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def waiting(self) -> int:
        """Requests in the engine's queue."""
        return self._engine.waiting

    async def process(self, request_id: str, work: Work, on_token: Callable[[bool], None]) -> None:
        """Have the engine work on a request until it has finished; being cancelled aborts it there.

        `on_token` is called for each token, with True for the last one.
        """
        if (overhead_s := self._overhead_s(work.prompt_tokens)) > 0:
            await asyncio.sleep(overhead_s / self.speed)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        now_s = monotonic()
        self._engine.submit(request_id, work.prompt_tokens, work.output_tokens, now_s, work.content)
        self._on_change(now_s)
        self._requests[request_id] = _TokenListener(on_token, done)
        self._has_work.set()
        try:
            await done
        finally:
            self._engine.abort(request_id)
            self._on_change(monotonic())
            self._requests.pop(request_id, None)

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            self._has_work.clear()
            await self._has_work.wait()
            await self._run_until_idle()

    async def _run_until_idle(self) -> None:
        deadline_s = monotonic()
        while (duration_s := self._begin_step()) is not None:
            deadline_s = max(deadline_s + duration_s / self.speed, monotonic() - MAX_LAG_S)
            await asyncio.sleep(deadline_s - monotonic())
            self._deliver(self._engine.end_step(monotonic()))

    def _begin_step(self) -> float | None:
        now_s = monotonic()
        duration_s = self._engine.begin_step(now_s)
        self._on_change(now_s)
        return duration_s

    def _deliver(self, result: StepResult) -> None:
        finished = frozenset(result.finished)
        for request_id in result.produced:
            self._requests[request_id].on_token(request_id in finished)
        for request_id in result.finished:
            done = self._requests.pop(request_id).done
            if not done.done():  # The client may have left a moment ago.
                done.set_result(None)
        self._on_step(result)
