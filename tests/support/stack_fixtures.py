"""Fixtures of tests with a real Envoy: conftest.py of their folder imports those that it needs."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from support.envoy_process import EnvoyProcess, StartEnvoy
from support.patience import wait_until
from support.ports import free_port
from support.process_stack import LocalStack, SharedStack, StartSim, running
from support.warm_process import WarmProcess

from extproc.adapters.http.fleet_state import is_answering
from extproc.fleet.endpoint import Endpoint
from extproc.lab.local_stack.child_process import ChildProcess

NO_SERVERS: Mapping[str, AbstractAsyncContextManager[int]] = MappingProxyType({})


@contextmanager
def envoys(directory: Path) -> Iterator[StartEnvoy]:
    """Starts an Envoy, `start_envoy(ext_proc, backends)`, which the end of the block stops.

    It blocks until Envoy is ready: from a coroutine, call it by `asyncio.to_thread`.
    """
    started: list[EnvoyProcess] = []

    def start(ext_proc: str, backends: Sequence[Endpoint], **options: Any) -> EnvoyProcess:
        envoy = EnvoyProcess(directory / f"envoy-{len(started)}", ext_proc, backends, **options)
        started.append(envoy)
        return envoy

    yield start
    for envoy in started:
        envoy.stop()


@pytest.fixture
def start_envoy(tmp_path: Path) -> Iterator[StartEnvoy]:
    """Envoys for one test."""
    with envoys(tmp_path) as start:
        yield start


@pytest.fixture
def stack(tmp_path: Path, start_envoy: StartEnvoy) -> LocalStack:
    """A stack that is not started yet: add simulated backends, then `await stack.start()` and `.stop()`."""
    return LocalStack(tmp_path, start_envoy)


@contextmanager
def sharing(
    directory: Path,
    prepare: Callable[[LocalStack], None],
    servers: Mapping[str, AbstractAsyncContextManager[int]] = NO_SERVERS,
) -> Iterator[SharedStack]:
    """Runs a stack that was prepared so, for those tests of a module that leave it as it was.

    Of `servers`, which are backends in this process, each gives its port.
    """
    with envoys(directory) as start_envoy, asyncio.Runner() as runner:
        stack, exits = LocalStack(directory, start_envoy), AsyncExitStack()

        async def start() -> None:
            for name, server in servers.items():
                stack.backends[name] = await exits.enter_async_context(server)
            prepare(stack)
            await exits.enter_async_context(running(stack))

        try:
            runner.run(start())
            yield SharedStack(stack, runner.run)
        finally:
            runner.run(exits.aclose())


def two_sims(stack: LocalStack) -> None:
    """Two fast backends."""
    for name in ("vllm-1", "vllm-2"):
        stack.start_sim(name, "--speed", "4")


@pytest.fixture(scope="module")
def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedStack]:
    """A stack of two backends that runs."""
    with sharing(tmp_path_factory.mktemp("shared"), two_sims) as shared:
        yield shared


@pytest.fixture
def start_sim(tmp_path: Path) -> Iterator[StartSim]:
    """Starts simulated servers, and ends them with the test."""
    started: list[ChildProcess] = []

    def start(*options: str) -> tuple[str, ChildProcess]:
        port = free_port()
        command = [sys.executable, "-m", "extproc", "sim", "--port", str(port), *options]
        child = WarmProcess("sim", command, tmp_path / f"sim-{port}.log")
        started.append(child)
        child.start()
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_answering(f"{url}/health"))
        return url, child

    yield start
    for child in started:
        child.stop(5.0)
