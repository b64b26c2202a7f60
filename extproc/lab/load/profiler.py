"""`extproc profile`: puts load on servers by a schedule, and records a sample of every request.

The run is bounded in every direction: its requests by the schedule, each request and each wait in time.
SIGINT and SIGTERM end it early and in order; what was measured by then is kept.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp
import numpy as np

from extproc.adapters.files.sample_store import SampleStore
from extproc.lab.load.direct_target import open_direct
from extproc.lab.load.figures import Figures, StepFigures
from extproc.lab.load.measured import Target
from extproc.lab.load.open_loop import OpenLoop
from extproc.lab.load.profiled_servers import Servers
from extproc.lab.load.served_model import find_model
from extproc.lab.load.stack_target import open_stack
from extproc.lab.load.stream_client import open_session
from extproc.lab.traffic.workload import Schedule, Workload

_REFRESH_S = 0.25
_KEEP_ALL_ROWS = 1 << 30
"""The schedule bounds what is added; a sidecar's store that is appended to must not be cut to our limit."""


class View(Protocol):
    """Who shows how it goes."""

    def refresh(self, figures: Figures, now_s: float) -> None:
        """Some time has passed."""

    def step_ended(self, step: StepFigures) -> None:
        """A step is over; of its requests some are still in flight."""


@dataclass(frozen=True, slots=True)
class ProfileResult:
    """What came of a run; `ended_by` is None unless the servers' failures ended it."""

    figures: Figures
    model: str
    was_interrupted: bool
    ended_by: str | None
    not_recorded: int
    cpu_share: float


async def run_profile(
    servers: Servers,
    model: str | None,
    workload: Workload,
    schedule: Schedule,
    samples: Path,
    view: View,
    *,
    max_in_flight: int,
    seed: int,
) -> ProfileResult:
    """Run the schedule; with a `model` of None, requests ask for the one that all servers have.

    Raises ProfileError or SampleStoreError where the run cannot begin.
    """
    rng, stop = np.random.default_rng(seed), asyncio.Event()
    async with AsyncExitStack() as stack:
        interruption = stack.enter_context(_Interruption(stop))
        session = await stack.enter_async_context(open_session())
        target = await stack.enter_async_context(_opened(servers, model, session, rng))
        store = SampleStore.open(samples, _KEEP_ALL_ROWS)
        stack.callback(store.close)
        loop = OpenLoop(target, session, workload, schedule, max_in_flight, store.append, rng, stop)
        refresher = asyncio.create_task(_keep_showing(view.refresh, loop.figures))
        started_s, started_cpu_s = time.monotonic(), time.process_time()
        try:
            await loop.run(view.step_ended)
        finally:
            refresher.cancel()
            with suppress(asyncio.CancelledError):
                await refresher
        cpu_share = (time.process_time() - started_cpu_s) / (time.monotonic() - started_s)
    return ProfileResult(
        loop.figures, target.model, interruption.happened, loop.ended_by, store.dropped, cpu_share
    )


@asynccontextmanager
async def _opened(
    servers: Servers, name: str | None, session: aiohttp.ClientSession, rng: np.random.Generator
) -> AsyncIterator[Target]:
    if servers.backends:
        urls = [f"http://{backend.address}" for backend in servers.backends]
        model = await find_model(session, urls, name)
        async with open_direct(servers.backends, model, rng) as target:
            yield target
        return
    model = await find_model(session, [servers.stack_url], name)
    async with open_stack(session, servers.stack_url, servers.state_url, model) as stack:
        yield stack


async def _keep_showing(refresh: Callable[[Figures, float], None], figures: Figures) -> None:
    while True:
        refresh(figures, time.monotonic())
        await asyncio.sleep(_REFRESH_S)


class _Interruption:
    """While entered, SIGINT and SIGTERM set an event instead of ending the process."""

    def __init__(self, stop: asyncio.Event) -> None:
        self.happened = False
        self._stop = stop
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> "_Interruption":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)

    def _interrupt(self) -> None:
        self.happened = True
        self._stop.set()
