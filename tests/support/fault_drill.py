"""Faults under load: a stack, the load before, during and after a fault, and the time to recover."""

import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from support.client_load import Load, chat
from support.fault_table import FaultTable
from support.patience import until
from support.process_stack import LocalStack, running
from support.scripted_backend import ScriptedBackend

from extproc.lab.local_stack.child_process import ChildProcess

PER_TRY_TIMEOUT_S = 2
CONCURRENCY = 8


def impatient(stack: LocalStack) -> None:
    """Envoy waits for the headers of a stream for 2 s instead of 60."""
    shipped, short = "per_try_timeout: 60s", f"per_try_timeout: {PER_TRY_TIMEOUT_S}s"

    def edit(bootstrap: str) -> str:
        assert shipped in bootstrap
        return bootstrap.replace(shipped, short)

    stack.edit_envoy = edit


def start_sims(stack: LocalStack, count: int = 2, *options: str) -> None:
    for number in range(1, count + 1):
        stack.start_sim(f"vllm-{number}", *(options or ("--speed", "4")))


@asynccontextmanager
async def scripted(stack: LocalStack, count: int = 2) -> AsyncIterator[list[ScriptedBackend]]:
    """A running stack of scripted backends, vllm-1 and so on."""
    async with AsyncExitStack() as exits:
        backends = [await exits.enter_async_context(ScriptedBackend().serving()) for _ in range(count)]
        stack.backends = {f"vllm-{n}": backend.port for n, backend in enumerate(backends, 1)}
        await exits.enter_async_context(running(stack))
        yield backends


class Drill(Load):
    """Load during a fault. At its end nothing has failed, no slot is held, and the table has a line."""

    def __init__(
        self, stack: LocalStack, table: FaultTable, fault: str, body: Any = None, *, may_fail: bool = False
    ) -> None:
        super().__init__(stack, CONCURRENCY, chat(max_tokens=20) if body is None else body)
        self._table = table
        self._fault = fault
        self._may_fail = may_fail
        self._recovery_s: float | None = None

    @contextmanager
    def recovering(self) -> Iterator[None]:
        """Measure how long it takes until all is as before; a drill without has had no pause."""
        began_s = time.monotonic()
        yield
        self._recovery_s = time.monotonic() - began_s

    async def __aexit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        await super().__aexit__()
        if error_type is None:
            await self.conclude()

    async def conclude(self) -> None:
        assert self._may_fail or not self.failures, self._fault
        await self._stack.until_idle()
        asked = len(self.answers) + len(self.errors)
        self._table.add(self._fault, len(self.failures), asked, self._recovery_s)


def send(child: ChildProcess, number: signal.Signals) -> None:
    assert child.pid is not None
    os.kill(child.pid, number)


async def signalled(child: ChildProcess, number: signal.Signals) -> None:
    """Send it a signal, and wait until it has ended."""
    send(child, number)
    await until(lambda: child.ending() is not None)


async def until_placed(load: Load, names: Sequence[str] = ("vllm-1",)) -> None:
    """Wait until each of these backends has been chosen, and has answered, from now on."""
    seen = len(load.answers)
    await until(
        lambda: set(names) <= {answer.backend for answer in load.answers[seen:] if answer.is_complete},
    )


async def until_out(stack: LocalStack, name: str = "vllm-1", reason: str = "failing") -> None:
    await stack.until(lambda state: {b["name"]: b["reason"] for b in state["backends"]}[name] == reason)


def open_descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
