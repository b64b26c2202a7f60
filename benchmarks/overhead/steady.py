"""`python -m benchmarks.overhead.steady`: the latency that the sidecar adds at a rate that it can hold.

First the capacity in the open loop: the highest rate at which answers keep up with the requests. Then a share
of it: requests come when they come, and one that has to wait is late. Envoy without a processor and with an
empty one take the same rate in the turns between, so that the machine's own delays are not counted as added.
"""

import json
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.overhead.arms import DIRECT, SIDECAR, THIN, Arm, Bench
from benchmarks.overhead.latency_plot import save_plot
from benchmarks.overhead.paced import PacedLoad
from benchmarks.overhead.processes import BenchmarkError, Processes, machine_busy_s

FRACTIONS = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
MAX_ADDED_S = 10e-3  # at p99.9
MAX_CLIENT_CPU_S = 30e-6
_LOWEST_PER_S, _HIGHEST_PER_S = 100.0, 12_800.0
_STEPS, _STEP_S = 7, 4.0  # of the search: 7 halvings of a factor of 128 leave 4 %
_KEEPING_UP_S = 0.1
"""A rate 5 % too high has a backlog of twice this after a step."""


@dataclass(slots=True)
class ArmTurns:
    """All turns of an arm: latencies in seconds, and CPU times."""

    latencies_s: list[float] = field(default_factory=list)
    errors: int = 0
    server_cpu_s: float = 0.0
    envoy_cpu_s: float = 0.0
    client_cpu_s: float = 0.0

    def take(self, arm: Arm, load: PacedLoad, rate: float, turn_s: float, chunks: int) -> None:
        """Run another turn."""
        before = arm.read()
        result = load.run(arm.port, rate, turn_s, chunks)
        after = arm.read()
        self.latencies_s += result.latencies_s
        self.errors += result.errors + after.unplaced - before.unplaced
        self.server_cpu_s += after.server_cpu_s - before.server_cpu_s
        self.envoy_cpu_s += after.envoy_cpu_s - before.envoy_cpu_s
        self.client_cpu_s += result.client_cpu_s

    def latency_s(self, fraction: float) -> float:
        """A percentile of all turns together."""
        ordered = sorted(self.latencies_s)
        return ordered[int(len(ordered) * fraction)]

    def costs_us(self) -> list[float]:
        """CPU per request of the processor, with what it does anyway, of Envoy, and of the load."""
        parts = (self.server_cpu_s, self.envoy_cpu_s, self.client_cpu_s)
        return [cpu_s / len(self.latencies_s) * 1e6 for cpu_s in parts]

    def document(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "requests": len(self.latencies_s),
            "errors": self.errors,
            "percentiles_ms": {name: self.latency_s(part) * 1e3 for name, part in FRACTIONS.items()},
            "cpu_us": dict(zip(("server", "envoy", "load"), self.costs_us(), strict=True)),
        }


def main(
    *,
    duration_s: Annotated[float, typer.Option(min=1, help="of load, for each arm")] = 300.0,
    turn_s: Annotated[float, typer.Option(min=1, help="the arms alternate so often")] = 10.0,
    share: Annotated[float, typer.Option(min=0.01, max=1, help="of the capacity")] = 0.6,
    transport: Annotated[str, typer.Option(help="thin or grpcio")] = THIN,
    chunks: Annotated[int, typer.Option(min=0, help="of each answer; 0: no stream")] = 8,
    backends: Annotated[int, typer.Option(min=1, max=256)] = 16,
    plot: Annotated[Path | None, typer.Option(help="draw the distributions into this PNG")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="write the percentiles here")] = None,
) -> None:
    """Measure what the sidecar adds to the latency at a share of its capacity, up to p99.9."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are ended
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory(prefix="extproc-steady-") as name, Processes(Path(name)) as processes:
        bench = Bench(processes, Path(name), backends, 1, False)
        arms = [bench.direct(), bench.empty(transport), bench.sidecar(transport)]
        load = PacedLoad(Path(name))
        capacity_per_s = _capacity_per_s(arms[-1], load, chunks)
        rate = share * capacity_per_s
        console.print(f"capacity {capacity_per_s:,.0f}/s in the open loop; loaded with {rate:,.0f}/s")
        found = {arm.name: ArmTurns() for arm in arms}
        busy_s, own_s, begun_s = machine_busy_s(), processes.cpu_s(), time.perf_counter()
        for turn in range(max(1, round(duration_s / turn_s))):
            for arm in arms[:: -1 if turn % 2 else 1]:
                found[arm.name].take(arm, load, rate, turn_s, chunks)
        own_s = processes.cpu_s() - own_s + sum(one.client_cpu_s for one in found.values())
        others = (machine_busy_s() - busy_s - own_s) / (time.perf_counter() - begun_s)
    console.print(_table(found))
    console.print(f"Other work on the machine took {others:.2f} cores; at more than 0.2, measure again.")
    document = {"capacity_per_s": capacity_per_s, "requests_per_s": rate, "others_cores": others}
    if json_path:
        arms_document = {arm: one.document() for arm, one in found.items()}
        json_path.write_text(json.dumps(document | {"arms": arms_document}))
    if plot:
        save_plot({arm: one.latencies_s for arm, one in found.items()}, f"{rate:,.0f} requests/s", plot)
    if not _is_kept(found, SIDECAR[transport], console):
        raise typer.Exit(2)


def _capacity_per_s(arm: Arm, load: PacedLoad, chunks: int) -> float:
    """Return the highest rate at which answers keep up, by halving; BenchmarkError where none does."""
    held, lost = _LOWEST_PER_S, _HIGHEST_PER_S
    for _ in range(_STEPS):
        rate = (held * lost) ** 0.5
        result = load.run(arm.port, rate, _STEP_S, chunks)
        is_held = not result.errors and result.latency_s(0.99) <= _KEEPING_UP_S
        held, lost = (rate, lost) if is_held else (held, rate)
    if held == _LOWEST_PER_S:
        raise BenchmarkError(f"{arm.name} cannot hold any rate")
    return held


def _is_kept(found: dict[str, ArmTurns], arm: str, console: Console) -> bool:
    errors = sum(one.errors for one in found.values())
    added_s = found[arm].latency_s(0.999) - found[DIRECT].latency_s(0.999)
    client_us = found[arm].costs_us()[2]
    console.print(
        f"wrong or not placed: {errors} (0)\n"
        f"added at p99.9: {added_s * 1e3:+.1f} ms (≤ {MAX_ADDED_S * 1e3:.0f})\n"
        f"the load itself: {client_us:.0f} µs a request (≤ {MAX_CLIENT_CPU_S * 1e6:.0f})",
        highlight=False,
    )
    return not errors and added_s <= MAX_ADDED_S and client_us <= MAX_CLIENT_CPU_S * 1e6


def _table(found: dict[str, ArmTurns]) -> Table:
    table = Table(title="An open loop; latencies in ms from when each request was due, CPU in µs a request")
    names = (*FRACTIONS, *(f"added {name}" for name in FRACTIONS), "server µs", "Envoy µs", "load µs")
    for column in ("arm", "requests", *names):
        table.add_column(column, justify="left" if column == "arm" else "right")
    base_s = [found[DIRECT].latency_s(fraction) for fraction in FRACTIONS.values()]
    for arm, turns in found.items():
        own_s = [turns.latency_s(fraction) for fraction in FRACTIONS.values()]
        table.add_row(
            arm,
            f"{len(turns.latencies_s):,}",
            *(f"{one * 1e3:.2f}" for one in own_s),
            *(f"{(a - b) * 1e3:+.2f}" for a, b in zip(own_s, base_s, strict=True)),
            *(f"{one:.0f}" for one in turns.costs_us()),
        )
    return table


if __name__ == "__main__":
    typer.run(main)
