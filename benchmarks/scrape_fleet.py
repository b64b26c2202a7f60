"""`python -m benchmarks.scrape_fleet`: scraping a thousand busy backends, and the requests beside it.

A sidecar as `extproc serve` starts it, with 16 and with 1,000 backends whose `/metrics` are the 48 KB of a
vLLM that works: every number of a page is another than in the one before. One HTTP/2 connection stands in
Envoy's place, and has one request after the other placed, at random times. CPU and scrapes are those of a
window without requests.
"""

import json
import random
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.overhead.processes import Processes, fetch
from benchmarks.streams import Caller, start_sidecar

SMALL, LARGE = 16, 1000
MAX_CORES = 0.3
MAX_ADDED_P99_MS = 1.0
_PER_S = 100
_SETTLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Found:
    """What scraping so many backends costs, how old it leaves what is known, and requests beside it."""

    cores: float
    scrapes_per_s: float
    oldest_s: float
    p50_ms: float
    p99_ms: float


def measured(backends: int, duration_s: float) -> Found:
    """Measure one sidecar, which is started for it."""
    with tempfile.TemporaryDirectory(prefix="extproc-scrapes-") as name, Processes(Path(name)) as processes:
        port, http_port, sidecar = start_sidecar(processes, Path(name), backends, "--full-metrics", "--busy")
        backend_port = int(_known(http_port)[0]["address"].rpartition(":")[2])
        caller = Caller(port)
        time.sleep(_SETTLE_S)
        scrapes, cpu_s, begun_s = _scrapes(backend_port), sidecar.cpu_s(), time.monotonic()
        time.sleep(duration_s)
        cpu_s, scrapes = sidecar.cpu_s() - cpu_s, _scrapes(backend_port) - scrapes
        took_s = time.monotonic() - begun_s
        oldest_s = max(one["scrape_age_s"] for one in _known(http_port))
        latencies_ms = sorted(_latencies_ms(caller, int(duration_s * _PER_S)))
    p99_ms = latencies_ms[int(0.99 * len(latencies_ms))]
    return Found(cpu_s / took_s, scrapes / took_s, oldest_s, statistics.median(latencies_ms), p99_ms)


def _known(http_port: int) -> list[dict[str, Any]]:
    """What the sidecar knows of its backends."""
    found: list[dict[str, Any]] = json.loads(fetch(http_port, "/v1/state") or "{}")["backends"]
    return found


def _scrapes(port: int) -> int:
    return int(fetch(port, "/scrapes") or 0)


def _latencies_ms(caller: Caller, requests: int) -> list[float]:
    """How long each request took to be placed; they come at random times, in step with no timer."""
    found, due_s, rng = [], time.perf_counter(), random.Random(1)
    for _ in range(requests):
        due_s += rng.expovariate(_PER_S)
        time.sleep(max(0.0, due_s - time.perf_counter()))
        sent_s = time.perf_counter()
        ids = caller.place(1)
        found.append((time.perf_counter() - sent_s) * 1e3)
        caller.end(ids)
    return found


def main(*, duration_s: Annotated[float, typer.Option(min=1, help="of each window")] = 20.0) -> None:
    """Measure both, and hold the large fleet against its budget; status 2 where that is not kept."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are ended
    table = Table("backends", "cores", "scrapes/s", "oldest", "placing p50", "p99")
    results = {}
    for backends in (SMALL, LARGE):
        found = results[backends] = measured(backends, duration_s)
        table.add_row(
            f"{backends:,}",
            f"{found.cores:.2f}",
            f"{found.scrapes_per_s:,.0f}",
            f"{found.oldest_s:.2f} s",
            f"{found.p50_ms:.2f} ms",
            f"{found.p99_ms:.2f} ms",
        )
    added_ms = results[LARGE].p99_ms - results[SMALL].p99_ms
    is_kept = results[LARGE].cores <= MAX_CORES and added_ms <= MAX_ADDED_P99_MS
    Console().print(
        table, f"at most {MAX_CORES} cores, and p99 {MAX_ADDED_P99_MS} ms more: {added_ms:+.2f} ms",
        "[green]kept[/]" if is_kept else "[red]NOT KEPT[/]",
    )  # fmt: skip
    if not is_kept:
        raise typer.Exit(2)


if __name__ == "__main__":
    typer.run(main)
