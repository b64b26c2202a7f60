"""The open loop: requests are sent at their times, whether or not earlier ones have been answered.

A closed loop, in which each client waits for its answer, slows down with the server and never shows what
lies beyond saturation (Schroeder, Wierman and Harchol-Balter, "Open versus closed", NSDI 2006). The schedule
bounds the arrivals, and `max_in_flight` the requests in flight: arrivals beyond it are dropped and
counted, and end the pass, because higher rates would only drop more.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import numpy as np

from extproc.lab.load.completion import PATH, Reply, ask, completion_body
from extproc.lab.load.figures import Figures, StepFigures
from extproc.lab.load.measured import Place, Sent, Target, is_refused
from extproc.lab.traffic.arrivals import Arrival
from extproc.lab.traffic.step_requests import StepRequests
from extproc.lab.traffic.workload import Schedule, Step
from extproc.outcomes.facts import Sample
from extproc.outcomes.outcome import Failure

DRAIN_S = 120.0
"""Guessed: the time that requests in flight get to end after a pass."""
FAILURES_IN_A_ROW = 50
"""This many end the run, each sent after the first of them had failed: a server that dies fails all that it
has in flight at once, which counts as one."""


@dataclass(eq=False)
class OpenLoop:
    """One run over a schedule, or until `stop` is set.

    Where the servers fail it sets `stop` itself, and `ended_by` says why. Requests that have not ended
    `drain_s` after a pass are aborted.
    """

    target: Target
    session: aiohttp.ClientSession
    requests: StepRequests
    schedule: Schedule
    max_in_flight: int
    record: Callable[[Sample], None]
    rng: np.random.Generator
    stop: asyncio.Event
    drain_s: float = DRAIN_S

    def __post_init__(self) -> None:
        self.figures = Figures()
        self.ended_by: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures_in_a_row = 0
        self._failing_since_s = 0.0

    async def run(self, step_ended: Callable[[StepFigures], None]) -> None:
        """Send all of it; however it ends, nothing is in flight afterwards."""
        async with asyncio.TaskGroup() as group:
            for pass_number in range(1, self.schedule.passes + 1):
                for step in self.schedule.steps(pass_number):
                    if self.stop.is_set():
                        break
                    figures = await self._run_step(step, group)
                    step_ended(figures)
                    if figures.not_sent:
                        break
                await self._drain()

    async def _run_step(self, step: Step, group: asyncio.TaskGroup) -> StepFigures:
        started_s = time.monotonic()
        figures = self.figures.begin(step, started_s)
        target = self.target
        for arrival in self.requests.of_step(
            step, target.requests_per_arrival, target.max_model_len, self.rng
        ):
            bodies = self._bodies(arrival)
            if await _is_set_within(self.stop, started_s + arrival.at_s - time.monotonic()):
                break
            if len(self._tasks) + len(bodies) > self.max_in_flight:
                figures.not_sent += len(bodies)
                continue
            self._send(bodies, arrival, figures, group)
            late_s = time.monotonic() - started_s - arrival.at_s
            self.figures.was_sent(len(bodies), target.running, late_s)
        await _is_set_within(self.stop, started_s + step.duration_s - time.monotonic())
        self.figures.end(time.monotonic())
        return figures

    def _bodies(self, arrival: Arrival) -> list[bytes]:
        model, prompt_tokens, output_tokens = self.target.model, arrival.prompt_tokens, arrival.output_tokens
        return [
            completion_body(model, prompt_tokens, output_tokens, self.rng, arrival.content)
            for _ in range(self.target.requests_per_arrival)
        ]

    def _send(
        self, bodies: list[bytes], arrival: Arrival, figures: StepFigures, group: asyncio.TaskGroup
    ) -> None:
        at_s = time.time()
        for place, body in zip(self.target.place(), bodies, strict=True):
            sent = Sent(at_s, self.target.model, arrival.prompt_tokens, arrival.output_tokens, len(body))
            task = group.create_task(self._measure(place, body, sent, figures))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _measure(self, place: Place, body: bytes, sent: Sent, figures: StepFigures) -> None:
        reply, began_s = Reply(), time.monotonic()
        try:
            await ask(self.session, place.url + PATH, body, reply)
        finally:
            sample = place.end(sent, reply)
            if sample is not None:
                self.record(sample)
                self.figures.samples += 1
            elif reply.failure is None:
                self.figures.unplaced += 1
            self.figures.has_ended(figures, reply, is_refused(reply), time.monotonic())
            if not is_refused(reply) and reply.failure is not Failure.CLIENT_LEFT:
                self._count_in_a_row(reply.failure, began_s)

    def _count_in_a_row(self, failure: Failure | None, began_s: float) -> None:
        if failure is None:
            self._failures_in_a_row = 0
            return
        if not self._failures_in_a_row:
            self._failing_since_s = time.monotonic()
        elif began_s < self._failing_since_s:
            return
        self._failures_in_a_row += 1
        if self._failures_in_a_row == FAILURES_IN_A_ROW:
            self.ended_by = f"{FAILURES_IN_A_ROW} requests in a row have failed, the last one by: {failure}"
            self.stop.set()

    async def _drain(self) -> None:
        """Wait until nothing is in flight; what still is when time is up, or `stop` set, is aborted."""
        ends_s = time.monotonic() + self.drain_s
        while self._tasks and not self.stop.is_set() and time.monotonic() < ends_s:
            await _is_set_within(self.stop, 0.1)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event at most this time, and return whether it is set."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):  # with 0 the others get their turn nevertheless
            await event.wait()
    except TimeoutError:
        return False
    return True
