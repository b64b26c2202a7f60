"""Loads the libraries of extproc once, and forks for each process of it that is asked for, in `warm_process`.

Only libraries are loaded: each process imports extproc itself, draws its own keys, and is as young as any. A
process becomes a child of the one that has asked, which has to be a subreaper, see prctl(2).
"""

import ctypes
import importlib
import json
import os
import runpy
import signal
import sys
import time
from typing import Any

LIBRARIES = (
    *("aiohttp.web", "google.protobuf.message", "httptools", "msgspec", "numpy", "prometheus_client"),
    *("pydantic", "rich.console", "typer", "uvloop", "yaml"),
)
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Fork for each line of the input; returns in a process that has been asked for, to become it."""
    for name in LIBRARIES:
        importlib.import_module(name)
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        if (between := os.fork()) == 0:
            _fork_again(asked)
            return
        os.waitpid(between, 0)
    os._exit(0)


def _fork_again(asked: dict[str, Any]) -> None:
    """Say the process id of a second child, and end; that one is left to the subreaper."""
    between = os.getpid()
    if pid := os.fork():
        print(pid, flush=True)
        os._exit(0)
    while os.getppid() == between:
        time.sleep(0.001)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != asked["parent"]:
        os._exit(1)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir(asked["directory"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.path[0] = asked["directory"]
    sys.argv = ["extproc", *asked["arguments"]]


if __name__ == "__main__":
    main()
    runpy.run_module("extproc", run_name="__main__", alter_sys=True)
