"""A simulated vLLM server: the engine model behind vLLM's HTTP API, in real time and without a GPU.

It stands in for a backend in the local stack, in tests and in benchmarks.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from aiohttp import web

from extproc.adapters.stop_signals import stop_event
from extproc.errors import StackError
from extproc.lab.engine.engine import Engine
from extproc.lab.simulated_vllm.engine_loop import EngineLoop
from extproc.lab.simulated_vllm.vllm_api import SimApi
from extproc.lab.simulated_vllm.vllm_metrics import EngineMetrics, LateGauges
from extproc.lab.simulated_vllm.vllm_options import SimOptions

ACCEPT_BACKLOG = 2048  # borrowed: the default of uvicorn, which vLLM runs on
SHUTDOWN_GRACE_S = 0.5  # guessed: short answers end, long streams are cut; aiohttp waits for it twice


@dataclass(frozen=True, slots=True)
class SimServer:
    """A server that listens; `engine_task` ends only by an error."""

    port: int
    engine: Engine
    engine_task: asyncio.Task[None]


@asynccontextmanager
async def open_sim(options: SimOptions) -> AsyncIterator[SimServer]:
    """Serve until the block ends; raises StackError where the port cannot be had."""
    profile = options.engine_profile()
    engine = Engine(profile, options.limits())
    gauges = LateGauges(engine, options.gauge_delay_s)
    metrics = EngineMetrics(gauges, engine.limits, options.models[0])
    engine_loop = EngineLoop(engine, metrics.observe, gauges.changed, options.speed, profile.overhead_s)
    runner = web.AppRunner(
        SimApi(engine_loop, metrics, options).application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_GRACE_S,
    )
    await runner.setup()
    engine_task = asyncio.create_task(engine_loop.run())
    try:
        port = await _listen(runner, options)
        yield SimServer(port, engine, engine_task)
    finally:
        await runner.cleanup()
        engine_task.cancel()
        with suppress(asyncio.CancelledError):
            await engine_task


async def serve_sim(options: SimOptions, ready: Callable[[], None] | None = None) -> None:
    """Serve until cancelled, or until SIGTERM or SIGINT; call it from the main thread.

    `ready` is called once connections are accepted. Raises StackError where the port cannot be had.
    """
    with stop_event() as stop:
        async with open_sim(options) as server:
            server.engine_task.add_done_callback(lambda _: stop.set())
            if ready is not None:
                ready()
            await stop.wait()


async def _listen(runner: web.AppRunner, options: SimOptions) -> int:
    try:
        await web.TCPSite(runner, options.host, options.port, backlog=ACCEPT_BACKLOG).start()
    except OSError as error:
        raise StackError(f"cannot listen on {options.host}:{options.port}: {error.strerror}") from error
    port: int = runner.addresses[0][1]
    return port
