import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from integration.envoy_process import EnvoyProcess, StartEnvoy
from integration.local_stack import LocalStack, StartSim, free_port, wait_until

from extproc.adapters.envoy.files import BackendAddress
from extproc.adapters.local_stack.child_process import ChildProcess
from extproc.adapters.local_stack.state_client import is_answering


@pytest.fixture
def start_envoy(tmp_path: Path) -> Iterator[StartEnvoy]:
    """Starts an Envoy, `start_envoy(ext_proc, backends)`, which the end of the test stops.

    It blocks until Envoy is ready: from a coroutine, call it by `asyncio.to_thread`.
    """
    started: list[EnvoyProcess] = []

    def start(ext_proc: str, backends: Sequence[BackendAddress], **options: Any) -> EnvoyProcess:
        envoy = EnvoyProcess(tmp_path / f"envoy-{len(started)}", ext_proc, backends, **options)
        started.append(envoy)
        return envoy

    yield start
    for envoy in started:
        envoy.stop()


@pytest.fixture
def stack(tmp_path: Path, start_envoy: StartEnvoy) -> LocalStack:
    """A stack that is not started yet: add simulated backends, then `await stack.start()` and `.stop()`."""
    return LocalStack(tmp_path, start_envoy)


@pytest.fixture
def start_sim(tmp_path: Path) -> Iterator[StartSim]:
    """Starts simulated servers, and ends them with the test."""
    started: list[ChildProcess] = []

    def start(*options: str) -> tuple[str, ChildProcess]:
        port = free_port()
        command = [sys.executable, "-m", "extproc", "sim", "--port", str(port), *options]
        child = ChildProcess("sim", command, tmp_path / f"sim-{port}.log")
        started.append(child)
        child.start()
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_answering(f"{url}/health"))
        return url, child

    yield start
    for child in started:
        child.stop(5.0)
