"""What all drills have in common: load before, during and after a fault, and its end measured."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from faults.fault_table import FaultTable
from faults.scripted_backend import ScriptedBackend
from integration.local_stack import PATIENCE_S, Load, LocalStack, chat, running

from extproc.adapters.local_stack.child_process import ChildProcess

PER_TRY_TIMEOUT_S = 2
CONCURRENCY = 8


def impatient(stack: LocalStack) -> None:
    """Envoy waits for the headers of a stream for 2 s instead of 60."""
    shipped, short = "per_try_timeout: 60s", f"per_try_timeout: {PER_TRY_TIMEOUT_S}s"

    def edit(bootstrap: str) -> str:
        assert shipped in bootstrap
        return bootstrap.replace(shipped, short)

    stack.start_envoy = partial(stack.start_envoy, edit=edit)


def start_sims(stack: LocalStack, count: int = 2, *options: str) -> None:
    for number in range(1, count + 1):
        stack.start_sim(f"vllm-{number}", *(options or ("--speed", "4")))


@asynccontextmanager
async def scripted(stack: LocalStack, count: int = 2) -> AsyncIterator[list[ScriptedBackend]]:
    """A running stack of scripted backends, vllm-1 and so on."""
    async with AsyncExitStack() as exits:
        taken = {stack.grpc_port, stack.http_port}
        backends = [await exits.enter_async_context(ScriptedBackend().serving(taken)) for _ in range(count)]
        stack.backends = {f"vllm-{n}": backend.port for n, backend in enumerate(backends, 1)}
        await exits.enter_async_context(running(stack))
        yield backends


def under_load(stack: LocalStack, body: Any = None, concurrency: int = CONCURRENCY) -> Load:
    return Load(stack, concurrency, chat(max_tokens=20) if body is None else body)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()

    @property
    def passed_s(self) -> float:
        return time.monotonic() - self._started_s


def send(child: ChildProcess, number: signal.Signals) -> None:
    assert child.pid is not None
    os.kill(child.pid, number)


async def signalled(child: ChildProcess, number: signal.Signals) -> None:
    """Send it a signal, and wait until it has ended."""
    send(child, number)
    await until(lambda: child.ending() is not None)


async def until(is_so: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(patience_s):
        while not is_so():
            await asyncio.sleep(0.01)


async def until_placed(load: Load, names: Sequence[str] = ("vllm-1",)) -> None:
    """Wait until each of these backends has been chosen, and has answered, from now on."""
    seen = len(load.answers)
    await until(
        lambda: set(names) <= {answer.backend for answer in load.answers[seen:] if answer.is_complete},
    )


async def until_out(stack: LocalStack, name: str = "vllm-1", reason: str = "failing") -> None:
    await stack.until(lambda state: {b["name"]: b["reason"] for b in state["backends"]}[name] == reason)


async def settled(
    stack: LocalStack, load: Load, table: FaultTable, fault: str, recovery_s: float | None
) -> None:
    """After the load: no slot is held, and the result is recorded."""
    await stack.until_idle(patience_s=5.0)
    asked = len(load.answers) + len(load.errors)
    table.add(fault, len(load.failures), asked, recovery_s)


def log_has(stack: LocalStack, event: str) -> bool:
    return event in stack.sidecar.log_path.read_text()


def open_descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
