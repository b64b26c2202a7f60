"""A process of the local stack: started, restarted, its log shown, and ended with the stack in every case.

Each has a session of its own, so that Ctrl-C in a terminal reaches only its parent, which ends its children
in order. Where the parent itself is killed the kernel ends them (Linux; see PR_SET_PDEATHSIG in prctl(2)).
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from extproc.errors import StackError

EXTPROC = (sys.executable, "-P", "-m", "extproc")
"""The command of this very installation: without -P, a directory `extproc` where it is started came first."""


def typed_command() -> str:
    """Return how this installation's command is typed: `extproc` where PATH has it, its path elsewhere."""
    installed = Path(sys.executable).with_name("extproc")
    found = shutil.which("extproc")
    return "extproc" if found and Path(found).samefile(installed) else str(installed)


_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 4000
_TAIL_LINES = 15

SHORTEST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
HEALTHY_AFTER_S = 30.0
"""All guessed: a crash costs next to nothing, a crash loop does not fill the terminal."""


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
        """Return how it ended, in words; None as long as it runs, and before it is started."""
        status = None if self._process is None else self._process.poll()
        if status is None:
            return None
        return (
            f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        )

    def log_tail(self) -> str:
        """Return the last lines of its log, indented."""
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
    """Return the function that a child runs before its program; None on other systems."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def end_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has gone already, so no signal would come
            os._exit(1)

    return end_with_parent


class ChildRestart:
    """Starts a process again whenever it ends, after a pause that doubles each time, within limits.

    `now_s` is of one monotonic clock.
    """

    def __init__(self, child: ChildProcess, now_s: float) -> None:
        self._child = child
        self._started_s = now_s
        self._due_s: float | None = None
        self._next_pause_s = SHORTEST_PAUSE_S

    def advance(self, now_s: float) -> str | None:
        """Start it where that is due; returns what has happened, in words, where it has just ended."""
        if self._due_s is None:
            return self._plan_restart(now_s)
        if now_s >= self._due_s:
            self._child.start()
            self._started_s, self._due_s = now_s, None
        return None

    def _plan_restart(self, now_s: float) -> str | None:
        ending = self._child.ending()
        if ending is None:
            return None
        if now_s - self._started_s >= HEALTHY_AFTER_S:
            self._next_pause_s = SHORTEST_PAUSE_S
        pause_s, self._next_pause_s = self._next_pause_s, min(LONGEST_PAUSE_S, self._next_pause_s * 2)
        self._due_s = now_s + pause_s
        return f"{ending}, and is restarted in {pause_s:g} s"
