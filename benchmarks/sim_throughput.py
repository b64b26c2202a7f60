"""How many streamed chunks a second one process of the simulated vLLM serves, and what a chunk costs it.

Runs the server in a child process and a bare-socket client in this one. The first rows ask for more than any
process can serve (a machine a thousand times too fast); the last asks for what an A100 would do, and shows
whether real time is kept.

    python -m benchmarks.sim_throughput
"""

import asyncio
import json
import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import cast

import uvloop
from rich.console import Console
from rich.table import Table

from extproc.lab.engine.engine_profile import PROFILES
from extproc.lab.engine.run import TICK_S
from extproc.lab.simulated_vllm.vllm_options import SimOptions
from extproc.lab.simulated_vllm.vllm_server import serve_sim

PORT = 18431
WARM_UP_S = 1.0
MEASURED_S = 5.0
OUTPUT_TOKENS = 200


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement."""

    streams: int
    speed: float
    chunks_per_s: float
    chunks_per_cpu_s: float
    server_cpu_cores: float


class Streamer(asyncio.Protocol):
    """Asks for one stream after the other on one connection, and counts events."""

    events = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self.transport = cast(asyncio.WriteTransport, transport)  # uvloop's is none by inheritance
        body = json.dumps({"prompt": [1] * 16, "max_tokens": OUTPUT_TOKENS, "stream": True})
        self.request = (
            "POST /v1/completions HTTP/1.1\r\nhost: sim\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}"
        ).encode()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Count, and send the next request once the last chunk is there."""
        Streamer.events += data.count(b"data: ")
        if data.endswith(b"0\r\n\r\n"):
            self.transport.write(self.request)


def serve(options: SimOptions, parent: Connection) -> None:
    """The child process: serves, and tells its CPU time when it is asked."""

    def tell_cpu() -> None:
        parent.recv()
        parent.send(time.process_time())

    async def main() -> None:
        asyncio.get_running_loop().add_reader(parent.fileno(), tell_cpu)
        await serve_sim(options, ready=lambda: parent.send("ready"))

    uvloop.run(main())


def measure(streams: int, speed: float) -> Row:
    options = SimOptions(port=PORT, profile="a100-8b", speed=speed, max_num_seqs=1024, seed=0)
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(options, there))
    server.start()
    there.close()  # so that a server that dies ends the wait
    try:
        here.recv()
        return uvloop.run(stream(here, streams, speed))
    finally:
        server.terminate()
        server.join()


async def stream(server: Connection, streams: int, speed: float) -> Row:
    loop = asyncio.get_running_loop()
    for _ in range(streams):
        await loop.create_connection(Streamer, "127.0.0.1", PORT)
    await asyncio.sleep(WARM_UP_S)
    cpu_s, events, start_s = ask_cpu(server), Streamer.events, time.monotonic()
    await asyncio.sleep(MEASURED_S)
    cpu_s, events, wall_s = ask_cpu(server) - cpu_s, Streamer.events - events, time.monotonic() - start_s
    return Row(streams, speed, events / wall_s, events / cpu_s, cpu_s / wall_s)


def ask_cpu(server: Connection) -> float:
    server.send("cpu")
    cpu_s: float = server.recv()
    return cpu_s


def expected_chunks_per_s(streams: int) -> float:
    """What real time asks for: all streams decode together, halfway through on average; prefill is small."""
    profile = PROFILES["a100-8b"]
    step_s = profile.step_ticks().decode_step(streams, streams * (16 + OUTPUT_TOKENS // 2)) * TICK_S
    prefill_s = streams * 16 * profile.prefill_token_s / OUTPUT_TOKENS
    return streams / (step_s + prefill_s)


def main() -> None:
    table = Table("streams", "machine", "chunks/s", "chunks per CPU s", "server cores")
    for streams, speed in ((1, 1000.0), (16, 1000.0), (256, 1000.0), (1000, 1000.0), (256, 1.0)):
        row = measure(streams, speed)
        table.add_row(
            str(row.streams),
            f"A100 x {row.speed:g}",
            f"{row.chunks_per_s:,.0f}",
            f"{row.chunks_per_cpu_s:,.0f}",
            f"{row.server_cpu_cores:.2f}",
        )
    Console().print(table)
    Console().print(
        f"In real time an A100 with 256 streams would send {expected_chunks_per_s(256):,.0f} chunks/s."
    )


if __name__ == "__main__":
    main()
