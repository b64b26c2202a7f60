"""`extproc profile`: puts load on servers by a schedule, and records a sample of every request.

The run is bounded in every direction: its requests by the schedule, each request and each wait in time.
SIGINT and SIGTERM end it early and in order; what was measured by then is kept.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np

from extproc.adapters.files.sample_reading import take_in
from extproc.adapters.files.sample_store import SampleStore
from extproc.adapters.stop_signals import stop_event
from extproc.lab.load.completion import open_session
from extproc.lab.load.direct_target import open_direct
from extproc.lab.load.figures import Figures, StepFigures
from extproc.lab.load.measured import Target
from extproc.lab.load.open_loop import OpenLoop
from extproc.lab.load.profiled_servers import Servers, find_model
from extproc.lab.load.stack_target import open_stack
from extproc.lab.traffic.step_requests import StepRequests
from extproc.lab.traffic.workload import Schedule

_REFRESH_S = 0.25
_KEEP_ALL_ROWS = 1 << 30
"""The schedule bounds what is added; a sidecar's store that is appended to must not be cut to our limit."""


@dataclass(frozen=True, slots=True)
class ProfileResult:
    """The outcome of a run; `ended_by` is None unless failures of the servers ended it."""

    figures: Figures
    model: str
    was_interrupted: bool
    ended_by: str | None
    not_recorded: int
    cpu_share: float
    max_model_len: int | None = None


async def run_profile(
    servers: Servers,
    model: str | None,
    requests: StepRequests,
    schedule: Schedule,
    samples: Path,
    refresh: Callable[[Figures, float], None],
    step_ended: Callable[[StepFigures], None],
    *,
    max_in_flight: int,
    seed: int,
) -> ProfileResult:
    """Run the schedule; with a `model` of None, requests ask for the one that all servers have.

    `refresh` is called again and again with the monotonic time, `step_ended` after each step, of whose
    requests some may still be in flight.
    Raises ProfileError or SampleStoreError where the run cannot begin.
    """
    rng = np.random.default_rng(seed)
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(stop_event())
        session = await stack.enter_async_context(open_session())
        target = await stack.enter_async_context(_opened(servers, model, session, rng))
        stack.callback(take_in, samples)
        store = SampleStore.open(samples, _KEEP_ALL_ROWS, asyncio.get_running_loop().call_later)
        stack.callback(store.close)
        loop = OpenLoop(target, session, requests, schedule, max_in_flight, store.append, rng, stop)
        cpu_share = await _shown(loop, refresh, step_ended)
    return ProfileResult(
        figures=loop.figures,
        model=target.model,
        was_interrupted=stop.is_set() and loop.ended_by is None,
        ended_by=loop.ended_by,
        not_recorded=store.dropped,
        cpu_share=cpu_share,
        max_model_len=target.max_model_len,
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


async def _shown(
    loop: OpenLoop, refresh: Callable[[Figures, float], None], step_ended: Callable[[StepFigures], None]
) -> float:
    """Run the loop while its figures are shown; returns the share of a core that this process took."""
    refresher = asyncio.create_task(_keep_showing(refresh, loop.figures))
    started_s, started_cpu_s = time.monotonic(), time.process_time()
    try:
        await loop.run(step_ended)
    finally:
        refresher.cancel()
        with suppress(asyncio.CancelledError):
            await refresher
    return (time.process_time() - started_cpu_s) / (time.monotonic() - started_s)


async def _keep_showing(refresh: Callable[[Figures, float], None], figures: Figures) -> None:
    while True:
        refresh(figures, time.monotonic())
        await asyncio.sleep(_REFRESH_S)
