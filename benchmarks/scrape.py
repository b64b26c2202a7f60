"""`python -m benchmarks.scrape`: CPU time of one scrape of a text of the size that vLLM prints.

First the whole of it, from the request to the signals: with the sidecar's own connection, and with aiohttp's
client in its place, against a backend in another process. Then the reading of the text alone, and beside it
the general parser of prometheus-client, for what searching the bytes saves.
"""

import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import typer
import uvloop
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from benchmarks.exposition import vllm_exposition
from benchmarks.overhead.processes import Processes, accepts, free_ports
from benchmarks.timing import cpu_us
from extproc.adapters.vllm.exposition import read_signals
from extproc.adapters.vllm.kept_connection import KeptConnection
from extproc.adapters.vllm.wanted_lines import WantedLines

BUDGET_US = 300
ROUNDS, SCRAPES = 9, 200

Get = Callable[[], Awaitable[bytes]]


async def scrape_us(get: Get) -> float:
    """Of one scrape on this side of the connection: median of the rounds."""
    rounds, lines = [], WantedLines()
    for _ in range(ROUNDS):
        began_s = time.thread_time()
        for _ in range(SCRAPES):
            if lines.read(await get()) is None:
                raise RuntimeError("the answer is no exposition")
        rounds.append((time.thread_time() - began_s) / SCRAPES * 1e6)
    return statistics.median(rounds)


async def measured_us(port: int) -> tuple[float, float]:
    """With the sidecar's connection, and with aiohttp's client."""
    connection = KeptConnection("127.0.0.1", port, timeout_s=5.0, max_body_bytes=1 << 20)

    async def ours() -> bytes:
        return (await connection.get("/metrics")).body

    async with aiohttp.ClientSession() as session:

        async def general() -> bytes:
            async with session.get(f"http://127.0.0.1:{port}/metrics", allow_redirects=False) as response:
                return await response.read()

        found = await scrape_us(ours), await scrape_us(general)
    connection.close()
    return found


def main() -> None:
    """Time both, and hold a scrape against its budget; status 2 where that is not kept."""
    text = vllm_exposition("bench", running=7, waiting=3, kv_cache_fraction=0.25)
    other_text = vllm_exposition("bench", running=8, waiting=3, kv_cache_fraction=0.26, served=17)
    remembered = WantedLines()

    def read_again() -> None:
        remembered.read(text)
        remembered.read(other_text)

    signals = read_signals(text)
    if signals is None or (signals.running, signals.waiting, signals.kv_cache_fraction) != (7, 3, 0.25):
        raise RuntimeError(f"the text was not read right: {signals}")
    with tempfile.TemporaryDirectory() as name, Processes(Path(name)) as processes:
        (port,) = free_ports(1)
        processes.start_module(
            "backend", "benchmarks.overhead.backend", "--full-metrics", "--busy", str(port)
        )
        processes.wait_for("the backend", lambda: accepts(port))
        ours_us, general_us = uvloop.run(measured_us(port))
    is_kept = ours_us <= BUDGET_US
    verdict = "[green]kept[/]" if is_kept else "[red]NOT KEPT[/]"
    table = Table(
        "what", "CPU µs", f"budget of a scrape: {BUDGET_US} µs", title=f"{len(text):,} bytes of /metrics"
    )
    table.add_row("a scrape", f"{ours_us:.0f}", verdict)
    table.add_row("a scrape with aiohttp's client", f"{general_us:.0f}", "")
    table.add_row("reading the text", f"{cpu_us(lambda: read_signals(text)):.0f}", "")
    table.add_row("reading it again, with other numbers", f"{cpu_us(read_again) / 2:.0f}", "")
    table.add_row("reading it again, with the same", f"{cpu_us(lambda: remembered.read(text)):.0f}", "")
    everything_us = cpu_us(lambda: list(text_string_to_metric_families(text.decode())), batches=20)
    table.add_row("reading all of it with prometheus-client", f"{everything_us:,.0f}", "")
    Console().print(table)
    if not is_kept:
        raise typer.Exit(2)


if __name__ == "__main__":
    typer.run(main)
