"""Processes of extproc that start in a fraction of the time: their libraries have been loaded already.

A test of the whole stack has three or four processes, each of which would take a second of CPU for imports.
"""

import atexit
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

from extproc.lab.local_stack.child_process import ChildProcess

COMMAND = (sys.executable, "-m", "extproc")
_SERVER = Path(__file__).with_name("warm_server.py")
_PR_SET_CHILD_SUBREAPER = 36


class WarmProcess(ChildProcess):
    """One whose command begins with `COMMAND`; any other is started as usual."""

    def start(self) -> None:
        """Start it, or start it again."""
        if self.command[: len(COMMAND)] != COMMAND:
            super().start()
            return
        asked = {
            "arguments": self.command[len(COMMAND) :],
            "directory": str(Path.cwd()),
            "environment": dict(os.environ),
            "log": str(self.log_path),
            "parent": os.getpid(),
        }
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(asked).encode() + b"\n")
        server.stdin.flush()
        self._process = _Forked(int(server.stdout.readline()))  # type: ignore[assignment]  # as far as it is used


@cache
def _server() -> "subprocess.Popen[bytes]":
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    server = subprocess.Popen([sys.executable, _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    atexit.register(server.communicate)  # which ends it
    return server


class _Forked:
    """A child of ours that another process has started, with the methods of Popen that are needed."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def wait(self, timeout_s: float | None = None) -> int:
        ends_s = None if timeout_s is None else time.monotonic() + timeout_s
        while (status := self.poll()) is None:
            if ends_s is not None and time.monotonic() >= ends_s:
                raise subprocess.TimeoutExpired(str(self.pid), timeout_s or 0.0)
            time.sleep(0.005)
        return status

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)
