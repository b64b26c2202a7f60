"""The processes of a benchmark: started, waited for, their CPU time read, and ended whatever happens."""

import os
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_END_S = 5.0
_START_S = 30.0
_CPUCLOCK_SCHED = 2
_IMPORTS = os.pathsep.join((str(Path(__file__).parents[2]), sysconfig.get_path("purelib")))
"""For an interpreter beside this one, of the same minor version: it has no packages of its own."""


class BenchmarkError(Exception):
    """The benchmark cannot be run, or what it measured would not mean anything."""


class Process:
    """One started process; its output goes to a file."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self._name, self._log = name, log
        with log.open("wb") as output:  # a session of its own: Ctrl-C reaches the harness only, which ends it
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": _IMPORTS},
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    def cpu_s(self) -> float:
        """User and system CPU time of all its threads so far, ended ones included, to the nanosecond.

        Linux' CPU clock of another process, see clock_getcpuclockid(3); /proc/PID/stat has the same sum in
        steps of 10 ms.
        """
        return time.clock_gettime(~self.pid << 3 | _CPUCLOCK_SCHED)

    def last_output(self) -> str:
        """The end of what it printed, under its name."""
        return f"--- {self._name}\n{self._log.read_text(errors='replace')[-1500:]}"

    def check(self) -> None:
        """Raise BenchmarkError, with the end of its output, if it is no longer running."""
        if self._popen.poll() is not None:
            raise BenchmarkError(f"ended with status {self._popen.returncode}: {self.last_output()}")

    def ask_to_end(self) -> None:
        """Send SIGTERM."""
        self._popen.terminate()

    def end(self, timeout_s: float) -> None:
        """Wait for its end; SIGKILL after `timeout_s`."""
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


class Processes:
    """All processes of one run. A context manager: leaving it ends them all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._started:
            process.ask_to_end()
        deadline_s = time.monotonic() + _END_S
        for process in self._started:
            process.end(max(0.1, deadline_s - time.monotonic()))

    def cpu_s(self) -> float:
        """The CPU time of all of them and of this process."""
        return time.process_time() + sum(process.cpu_s() for process in self._started)

    def start(self, name: str, command: Sequence[str]) -> Process:
        """Start a process; its output goes to NAME.log in the run's directory."""
        process = Process(name, command, self._directory / f"{name}.log")
        self._started.append(process)
        return process

    def start_module(self, name: str, module: str, *arguments: str, python: str = sys.executable) -> Process:
        """Start `python -m MODULE ARGUMENTS`, with this interpreter or another one."""
        return self.start(name, [python, "-m", module, *arguments])

    def wait_for(self, what: str, is_true: Callable[[], bool]) -> None:
        """Return when the condition holds; BenchmarkError after 30 s, or if any process has ended."""
        deadline_s = time.monotonic() + _START_S
        while not is_true():
            for process in self._started:
                process.check()
            if time.monotonic() > deadline_s:
                outputs = "\n".join(process.last_output() for process in self._started)
                raise BenchmarkError(f"waited {_START_S:.0f} s in vain for {what}\n{outputs}")
            time.sleep(0.05)


def machine_busy_s() -> float:
    """The CPU time that the machine's processes, and its hypervisor's other guests, have taken so far."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle, waiting_for_disk = ticks[3], ticks[4]
    return (sum(ticks) - idle - waiting_for_disk) / os.sysconf("SC_CLK_TCK")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def accepts(port: int) -> bool:
    """Whether somebody listens on 127.0.0.1:`port`."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def fetch(port: int, path: str) -> str | None:
    """The body of a GET from 127.0.0.1:`port`; None if there is no answer, or not a 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return str(response.read().decode()) if response.status == 200 else None
    except (urllib.error.URLError, OSError):
        return None
