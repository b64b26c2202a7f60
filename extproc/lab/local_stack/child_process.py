"""A process of the local stack: started, restarted, its log shown, and ended with the stack in every case.

Each has a session of its own, so that Ctrl-C in a terminal reaches only its parent, which ends its children
in order. Where the parent itself is killed the kernel ends them (Linux; see PR_SET_PDEATHSIG in prctl(2)).
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from extproc.errors import StackError

_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 4000
_TAIL_LINES = 15


class ChildProcess:
    """One process. Its output is appended to `log_path`, over restarts."""

    def __init__(self, name: str, command: Sequence[str], log_path: Path) -> None:
        self.name = name
        self.command = tuple(command)
        self.log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again; raises StackError where the program cannot be run."""
        with self.log_path.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=_end_with_parent(),  # noqa: PLW1509 - the parent has one thread at this point
                )
            except (OSError, subprocess.SubprocessError) as error:
                raise StackError(f"{self.name}: cannot run {self.command[0]}: {error}") from error

    @property
    def pid(self) -> int | None:
        """The process id; None before the first start."""
        return None if self._process is None else self._process.pid

    def ending(self) -> str | None:
        """How it ended, in words; None as long as it runs, and before it is started."""
        status = None if self._process is None else self._process.poll()
        if status is None:
            return None
        return (
            f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        )

    def log_tail(self) -> str:
        """The last lines of its log, indented."""
        with self.log_path.open("rb") as log:
            log.seek(max(0, self.log_path.stat().st_size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join(f"  {line}" for line in lines) or "  (its log is empty)"

    def stop(self, grace_s: float) -> None:
        """End it by SIGTERM, after `grace_s` by SIGKILL; one that has ended, or never began, is no error."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _end_with_parent() -> Callable[[], None] | None:
    """What a child does before it runs its program; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def ask_for_death() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has gone already, so no signal would come
            os._exit(1)

    return ask_for_death
