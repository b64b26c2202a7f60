"""`python -m benchmarks.streams`: what the thin sidecar's streams weigh, and whether they leave anything.

A whole sidecar, as `extproc serve` starts it, and one HTTP/2 connection that stands in Envoy's place. First
many streams are open at once, each with a request that has been placed; then many more are opened and closed,
some hundred at a time. Memory is the process's resident set, from /proc.
"""

import json
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console

from benchmarks.h2_exchange import stateless
from benchmarks.overhead.load import chat_request
from benchmarks.overhead.processes import Process, Processes, accepts, fetch, free_ports
from extproc.adapters.envoy.services import EXT_PROC_SERVICE
from extproc.adapters.protos import ext_proc_pb2 as pb
from extproc.h2.frames import DATA, HEADERS, PREFACE, SETTINGS, frame, window_update
from extproc.h2.grpc_wire import prefixed

BACKENDS = 16
OPEN_AT_ONCE = 500
MAX_STREAM_BYTES = 8192
MAX_LEFT_BYTES = 8 << 20  # of a million streams: noise of the allocator, 8 bytes each
_END_STREAM, _END_HEADERS = 0x1, 0x4
FIELDS = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", f"/{EXT_PROC_SERVICE}/Process"),
    (":authority", "extproc"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)


class Caller:
    """One connection, in Envoy's place."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else an end waits 40 ms
        self._next_id = 1
        self._pending = b""
        self._block = stateless(FIELDS)
        headers = pb.ProcessingRequest()
        for name, value in ((":path", b"/v1/chat/completions"), (":method", b"POST")):
            headers.request_headers.headers.headers.add(key=name, raw_value=value)
        body = pb.ProcessingRequest()
        body.request_body.body = chat_request().partition(b"\r\n\r\n")[2]
        self._messages = [prefixed(message.SerializeToString()) for message in (headers, body)]
        # A window that is never used up: no message is ever cut into two frames.
        greeting = frame(SETTINGS, 0, 0, b"") + frame(SETTINGS, 1, 0, b"") + window_update(0, 1 << 30)
        self._socket.sendall(PREFACE + greeting)

    def place(self, count: int) -> list[int]:
        """Open streams, each with its request's headers and body, and wait for both answers."""
        ids = [self._next_id + 2 * index for index in range(count)]
        self._next_id += 2 * count
        first, second = self._messages
        self._socket.sendall(
            b"".join(
                frame(HEADERS, _END_HEADERS, stream_id, self._block)
                + frame(DATA, 0, stream_id, first)
                + frame(DATA, 0, stream_id, second)
                for stream_id in ids
            )
        )
        self._read(DATA, 0, 2 * count)
        return ids

    def end(self, ids: list[int]) -> None:
        """End streams, and wait until the server has."""
        self._socket.sendall(b"".join(frame(DATA, _END_STREAM, stream_id, b"") for stream_id in ids))
        self._read(HEADERS, _END_STREAM, len(ids))

    def _read(self, kind: int, flag: int, count: int) -> None:
        """Until this many frames of that kind have come."""
        while count:
            self._pending += self._socket.recv(1 << 20)
            at = received_bytes = 0
            while at + 9 <= len(self._pending):
                end = at + 9 + int.from_bytes(self._pending[at : at + 3], "big")
                if end > len(self._pending):
                    break
                found, flags = self._pending[at + 3], self._pending[at + 4]
                count -= found == kind and flags & flag == flag
                received_bytes += end - at - 9 if found == DATA else 0
                at = end
            self._pending = self._pending[at:]
            if received_bytes:
                self._socket.sendall(window_update(0, received_bytes))


def main(
    *,
    open_streams: Annotated[int, typer.Option(min=1, max=16_000, help="at once")] = 10_000,
    streams: Annotated[int, typer.Option(min=1, help="to open and close")] = 1_000_000,
) -> None:
    """Memory per open stream, and what is left of many that have ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are ended
    console = Console()
    with tempfile.TemporaryDirectory(prefix="extproc-streams-") as name, Processes(Path(name)) as processes:
        port, http_port, sidecar = start_sidecar(processes, Path(name), BACKENDS)
        pid = sidecar.pid
        caller = Caller(port)
        for _ in range(20):
            caller.end(caller.place(OPEN_AT_ONCE))
        before = resident_bytes(pid)
        ids = [stream for _ in range(open_streams // 100) for stream in caller.place(100)]
        held = _places_held(http_port)
        per_stream = (resident_bytes(pid) - before) / len(ids)
        console.print(
            f"{len(ids):,} streams open, {held:,} places held: {per_stream:,.0f} bytes each "
            f"(budget {MAX_STREAM_BYTES:,})"
        )
        caller.end(ids)
        before, begun_s = resident_bytes(pid), time.monotonic()
        for _ in range(streams // OPEN_AT_ONCE):
            caller.end(caller.place(OPEN_AT_ONCE))
        left = resident_bytes(pid) - before
        held, took_s = _places_held(http_port), time.monotonic() - begun_s
        console.print(
            f"{streams:,} streams opened and closed in {took_s:.0f} s: {held} places held, "
            f"{left / 1024:,.0f} KiB more than before"
        )
        if per_stream > MAX_STREAM_BYTES or left > MAX_LEFT_BYTES or held:
            raise typer.Exit(2)


def start_sidecar(
    processes: Processes, directory: Path, backends: int, *options: str
) -> tuple[int, int, Process]:
    """Start backends, with these options, and a sidecar of them; returns its ports and its process."""
    ports = free_ports(backends)
    processes.start_module("backends", "benchmarks.overhead.backend", *options, *map(str, ports))
    processes.wait_for("the backends", lambda: accepts(ports[-1]))
    port, http_port = free_ports(2)
    config = directory / "extproc.yaml"
    document = {
        "server": {"address": f"127.0.0.1:{port}", "transport": "thin"},
        "http": {"address": f"127.0.0.1:{http_port}"},
        "envoy": {"cds_path": str(directory / "cds.json")},
        "model": {"path": str(directory / "none.json")},
        "guard": {"max_active": 1 << 20},
        "backends": [
            {"name": f"vllm-{index}", "url": f"http://127.0.0.1:{one}"} for index, one in enumerate(ports)
        ],
    }
    config.write_text(yaml.safe_dump(document))
    command = [sys.executable, "-c", "from extproc.cli import main; main()", "serve", "--config", str(config)]
    sidecar = processes.start("sidecar", command)

    def is_routing() -> bool:
        state = json.loads(fetch(http_port, "/v1/state") or "{}")
        found = state.get("backends", ())
        return bool(found) and all(one["is_routable"] and one["models"] for one in found)

    processes.wait_for("the sidecar", is_routing)
    return port, http_port, sidecar


def _places_held(http_port: int) -> int:
    state = json.loads(fetch(http_port, "/v1/state") or "{}")
    return sum(one["own"] for one in state["backends"])


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    typer.run(main)
