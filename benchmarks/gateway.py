"""`python -m benchmarks.gateway`: the picker behind an Envoy that streams bodies both ways.

Beside it in the same run: our own mode, in which no part of a response passes through Python, the empty thin
server, and no processor at all. The CPU time of a streamed part is that of the picker over all parts of long
streams. Scrapes are in it, and our own mode has nothing else. The time added to TTFT is that of one request
after the other. How long a part is kept is measured at half a core, without an Envoy: see `part_latency`.
"""

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
import uvloop
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.gateway_envoy import gateway_config
from benchmarks.overhead.arms import DIRECT, EMPTY, SIDECAR, THIN, Bench, start_envoy
from benchmarks.overhead.load import run_load
from benchmarks.overhead.processes import Process, Processes, accepts, fetch, free_ports
from benchmarks.part_latency import (
    AT_ONCE,
    OPEN,
    SINGLE,
    STEPS,
    Arrivals,
    AtHalf,
    at_half_a_core,
    open_streams_bytes,
)

PICKER = "picker"
BUDGET_US, BUDGET_OF_EMPTY_US = 25.0, 36.0
"""A part costs at most so much on a machine where the empty thin server takes so much for a request."""
MAX_ADDED_MS = 1.0
CHUNKS, PAUSE_MS = 400, 10
MAX_PART_MS = 1.0
"""The longest that 99 parts of 100 may be kept, at half a core."""


@dataclass(frozen=True, slots=True)
class Side:
    """Where clients go, and whose CPU time is read."""

    port: int
    envoy: Process
    server: Process | None


@dataclass(frozen=True, slots=True)
class Picker:
    """A picker as a user starts it, in plain text, and the port of its only server."""

    server: Process
    port: int
    backend: int


def start_picker(processes: Processes, directory: Path) -> Picker:
    """Start one, and wait until it knows its server."""
    backend, grpc, health, http = free_ports(4)
    processes.start_module("backends-picker", "benchmarks.overhead.backend", str(backend))
    processes.wait_for("the picker's backends", lambda: accepts(backend))
    config = directory / "picker.yaml"
    document = {
        "model": {"path": str(directory / "none.json")},
        "samples": {"path": str(directory / "picker.sqlite")},
        "guard": {"max_active": 1 << 20, "max_predicted_ttft_s": 3600.0},
        "backends": [{"name": "vllm-1", "url": f"http://127.0.0.1:{backend}"}],
    }
    config.write_text(yaml.safe_dump(document))
    ports = ["--grpc-port", str(grpc), "--grpc-health-port", str(health), "--metrics-port", str(http)]
    command = [sys.executable, "-c", "from extproc.cli import main; main()", "picker", *ports]
    command += ["--config", str(config), "--secure-serving=false", "--drain-timeout", "0s"]
    server = processes.start(PICKER, command)

    def is_routing() -> bool:
        state = json.loads(fetch(http, "/v1/state") or "{}")
        return any(one["is_routable"] and one["models"] for one in state.get("backends", ()))

    processes.wait_for("the picker", is_routing)
    return Picker(server, grpc, backend)


def behind_envoy(processes: Processes, directory: Path, picker: Picker) -> Side:
    """Start a gateway in front of a picker."""
    admin, port = free_ports(2)
    text = gateway_config([picker.port], [picker.backend], listen_port=port, admin_port=admin)
    path = directory / "envoy-picker.yaml"
    path.write_text(text)
    envoy = start_envoy(processes, "envoy-picker", path, 1)
    processes.wait_for("Envoy of the picker", lambda: fetch(admin, "/ready") is not None)
    return Side(port, envoy, picker.server)


def added_ms(sides: dict[str, Side], rounds: int) -> dict[str, float]:
    """The median latency of one stream of one part after the other, the best of some rounds in turns."""
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(rounds):
        for name, side in sides.items():
            result = uvloop.run(run_load(side.port, 1, 1.0, chunks=1))
            best[name] = min(best[name], result.latency_s(0.5) * 1e3)
    return best


def per_part_us(side: Side, streams: int, duration_s: float) -> tuple[float, float]:
    """CPU time of the server and of Envoy for a part of a response, while this many are streamed."""
    before_s = side.server.cpu_s() if side.server else 0.0, side.envoy.cpu_s()
    result = uvloop.run(run_load(side.port, streams, duration_s, CHUNKS, PAUSE_MS))
    after_s = side.server.cpu_s() if side.server else 0.0, side.envoy.cpu_s()
    parts = max(1, result.requests) * (CHUNKS + 1)
    server_us, envoy_us = (
        (after - before) / parts * 1e6 for before, after in zip(before_s, after_s, strict=True)
    )
    return server_us, envoy_us


def per_request_us(side: Side, duration_s: float) -> float:
    """CPU time of the server for a request, 32 at once."""
    assert side.server is not None
    before_s = side.server.cpu_s()
    result = uvloop.run(run_load(side.port, 32, duration_s, chunks=1))
    return (side.server.cpu_s() - before_s) / max(1, result.requests) * 1e6


def main(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="of each measurement, in turns")] = 3,
    duration_s: Annotated[float, typer.Option(min=1, help="of each round of streams")] = 4.0,
    latency_only: Annotated[bool, typer.Option(help="measure the latency of parts alone")] = False,
) -> None:
    """CPU time and latency of a part, and what is added to TTFT; status 2 where a budget is not kept."""
    is_kept = True
    with tempfile.TemporaryDirectory(prefix="extproc-gateway-") as name, Processes(Path(name)) as processes:
        picker = start_picker(processes, Path(name))
        found = {
            arrivals: [
                at_half_a_core(picker.server, picker.port, arrivals, duration_s) for _ in range(rounds)
            ]
            for arrivals in (SINGLE, STEPS, AT_ONCE)
        }
        grown_mb = open_streams_bytes(picker.server, picker.port) / 1e6
        Console().print(f"{OPEN:,} open streams take {grown_mb:.1f} MB")
        if not latency_only:
            is_kept = _cost(processes, Path(name), picker, rounds, duration_s)
    if not _is_quick(found) or not is_kept:
        raise typer.Exit(2)


def _is_quick(found: dict[Arrivals, list[AtHalf]]) -> bool:
    """Show the latencies, and return whether they are within the budget."""
    names = ("parts/s", "core", "p50", "p99", "p99.9", "max", "over 1 ms", "sender late")
    table = Table("a part, ms, at half a core", *names)
    for arrivals, rounds in found.items():
        for each in rounds:
            latencies = each.latencies
            times = [f"{latencies.at(fraction) * 1e3:.2f}" for fraction in (0.5, 0.99, 0.999, 1.0)]
            share = f"{latencies.share_above(MAX_PART_MS / 1e3):.2%}"
            rate, late = f"{each.parts_per_s:,.0f}", f"{latencies.late_s * 1e3:.1f}"
            table.add_row(arrivals.name, rate, f"{each.core:.2f}", *times, share, late)
    Console().print(table)
    best_s = [min(each.latencies.at(0.99) for each in found[arrivals]) for arrivals in (SINGLE, STEPS)]
    return max(best_s) <= MAX_PART_MS / 1e3


def _cost(processes: Processes, directory: Path, picker: Picker, rounds: int, duration_s: float) -> bool:
    """Measure and show what a part and a request cost, and return whether it is within the budgets."""
    bench = Bench(processes, directory, 1, 1, is_metrics_whole=True)
    arms = [bench.direct(), bench.empty(THIN), bench.sidecar(THIN)]
    sides = {arm.name: Side(arm.port, arm.envoy, arm.server) for arm in arms}
    sides[PICKER] = behind_envoy(processes, directory, picker)
    latency_ms = added_ms(sides, rounds)
    empty_us = min(per_request_us(sides[EMPTY[THIN]], duration_s) for _ in range(rounds))
    request_us = min(per_request_us(sides[PICKER], duration_s) for _ in range(rounds))
    parts = {
        (arm, streams): min(per_part_us(sides[arm], streams, duration_s) for _ in range(rounds))
        for streams in (1, 16, 64)
        for arm in (DIRECT, SIDECAR[THIN], PICKER)
    }
    return _show(latency_ms, empty_us, request_us, parts)


def _show(
    latency_ms: dict[str, float],
    empty_us: float,
    request_us: float,
    parts: dict[tuple[str, int], tuple[float, float]],
) -> bool:
    console = Console()
    table = Table("a streamed part, µs of CPU", "1 stream", "16 streams", "64 streams")
    for arm in (DIRECT, SIDECAR[THIN], PICKER):
        for number, process in enumerate(("server", "Envoy")):
            cells = [f"{parts[arm, streams][number]:.1f}" for streams in (1, 16, 64)]
            table.add_row(f"{arm}, {process}", *cells)
    console.print(table)
    budget_us = BUDGET_US * empty_us / BUDGET_OF_EMPTY_US
    part_us = parts[PICKER, 16][0] - parts[SIDECAR[THIN], 16][0]
    added = {arm: latency_ms[arm] - latency_ms[DIRECT] for arm in latency_ms}
    console.print(
        f"a request, 32 at once: empty thin server {empty_us:.0f} µs, picker {request_us:.0f} µs of CPU\n"
        f"a part, 16 streams, without scrapes: {part_us:.1f} µs (budget {budget_us:.1f})\n"
        f"added at one connection: empty thin server {added[EMPTY[THIN]]:.2f} ms, "
        f"own mode {added[SIDECAR[THIN]]:.2f} ms, picker {added[PICKER]:.2f} ms (budget {MAX_ADDED_MS:.1f})"
    )
    return part_us <= budget_us and added[PICKER] <= MAX_ADDED_MS


if __name__ == "__main__":
    typer.run(main)
