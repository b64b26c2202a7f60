"""Servers that hold other requests are not loaded from a terminal without a yes."""

import asyncio
import os
import pty
import subprocess
import sys
from pathlib import Path

from support.ports import free_port
from support.scripted_backend import ScriptedBackend, page

from extproc.lab.load.other_traffic import requests_of_others
from extproc.lab.load.profiled_servers import parse_servers

BUSY = page(b"vllm:num_requests_running 3\nvllm:num_requests_waiting 2\n")


def answered(url: str, store: Path, answer: bytes) -> tuple[int, str]:
    """The status and output of `extproc profile` in a terminal, where its question gets this answer."""
    command = (sys.executable, "-m", "extproc", "profile", "--backends", url, "--samples", str(store))
    ours, terminal = pty.openpty()
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=subprocess.STDOUT) as process:
        os.close(terminal)
        os.write(ours, answer)
        output = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # so ends a terminal whose last writer is gone
                break
            output += piece
        status = process.wait(60)
    os.close(ours)
    return status, output.decode()


def test_a_server_that_holds_other_requests_is_left_alone_without_a_yes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ScriptedBackend().serving() as backend:
            backend.on_scrape = BUSY
            url = f"http://127.0.0.1:{backend.port}"
            status, output = await asyncio.to_thread(answered, url, tmp_path / "samples.db", b"n\n")
            assert status == 1
            assert "past saturation" in output
            assert "The servers hold 5 requests of others" in output
            assert backend.requests == 0

    asyncio.run(scenario())
    assert not (tmp_path / "samples.db").exists()


def test_a_server_that_does_not_tell_counts_as_idle() -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    assert requests_of_others(parse_servers(dead, "", ""), pause_s=0.0) == 0.0
    assert requests_of_others(parse_servers("", dead, dead), pause_s=0.0) == 0.0
