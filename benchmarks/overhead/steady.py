"""`python -m benchmarks.overhead.steady`: the latency that a sidecar adds at a rate that it can hold.

For each transport first the capacity, in a closed loop of 32 connections; then a share of it, in an open
loop: requests come when they come, and one that has to wait is late. Envoy without a processor takes the same
rate in the turns between, so that what is added is told apart from what the machine does to everybody.
"""

import json
import signal
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.overhead.arms import DIRECT, GRPCIO, SIDECAR, THIN, Arm, Bench
from benchmarks.overhead.load import LoadResult, run_load, run_paced
from benchmarks.overhead.processes import Processes

CONNECTIONS = 32
CAPACITY_S = 5.0
FRACTIONS = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


@dataclass(slots=True)
class Steady:
    """One transport: the rate, and all latencies at it, without and with the sidecar."""

    capacity_per_s: float
    requests_per_s: float
    latencies_s: dict[str, list[float]] = field(default_factory=dict)
    errors: int = 0

    def take(self, arm: str, result: LoadResult) -> None:
        """Another turn of an arm."""
        self.latencies_s.setdefault(arm, []).extend(result.latencies_s)
        self.errors += result.errors

    def percentile_ms(self, arm: str, fraction: float) -> float:
        """Of all turns of an arm together."""
        ordered = sorted(self.latencies_s[arm])
        return ordered[int(len(ordered) * fraction)] * 1e3


def main(
    *,
    duration_s: Annotated[float, typer.Option(min=1, help="of load, for each transport")] = 600.0,
    turn_s: Annotated[float, typer.Option(min=1, help="the arms alternate so often")] = 10.0,
    share: Annotated[float, typer.Option(min=0.01, max=1, help="of the capacity")] = 0.6,
    backends: Annotated[int, typer.Option(min=1, max=256)] = 16,
    json_path: Annotated[Path | None, typer.Option("--json", help="write the percentiles here")] = None,
) -> None:
    """What each transport adds to the latency at a share of its capacity, up to p99.9."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are ended
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory(prefix="extproc-steady-") as name, Processes(Path(name)) as processes:
        bench = Bench(processes, Path(name), backends, 1, False)
        direct = bench.direct()
        sidecars = {transport: bench.sidecar(transport) for transport in (GRPCIO, THIN)}
        found = {transport: _begin(arm, share) for transport, arm in sidecars.items()}
        for turn in range(max(1, round(duration_s / turn_s))):
            for transport, steady in found.items():
                arms = [direct, sidecars[transport]][:: -1 if turn % 2 else 1]
                for arm in arms:
                    kind = DIRECT if arm is direct else SIDECAR[transport]
                    steady.take(kind, uvloop.run(run_paced(arm.port, steady.requests_per_s, turn_s)))
    console.print(_table(found))
    if json_path:
        json_path.write_text(json.dumps({transport: _document(one) for transport, one in found.items()}))


def _begin(arm: Arm, share: float) -> Steady:
    rates = [uvloop.run(run_load(arm.port, CONNECTIONS, CAPACITY_S)).requests_per_s for _ in range(3)]
    capacity_per_s = statistics.median(rates)
    return Steady(capacity_per_s, capacity_per_s * share)


def _document(steady: Steady) -> dict[str, object]:
    return {
        "capacity_per_s": steady.capacity_per_s,
        "requests_per_s": steady.requests_per_s,
        "errors": steady.errors,
        "requests": {arm: len(latencies_s) for arm, latencies_s in steady.latencies_s.items()},
        "percentiles_ms": {
            arm: {name: steady.percentile_ms(arm, fraction) for name, fraction in FRACTIONS.items()}
            for arm in steady.latencies_s
        },
    }


def _table(found: dict[str, Steady]) -> Table:
    table = Table(title="An open loop; latencies in ms, from when each request was due")
    columns = (
        "capacity/s",
        "rate/s",
        "requests",
        "wrong",
        *FRACTIONS,
        *(f"added {name}" for name in FRACTIONS),
    )
    for column in ("transport", *columns):
        table.add_column(column, justify="left" if column == "transport" else "right")
    for transport, steady in found.items():
        arm = SIDECAR[transport]
        own = [steady.percentile_ms(arm, fraction) for fraction in FRACTIONS.values()]
        direct = [steady.percentile_ms(DIRECT, fraction) for fraction in FRACTIONS.values()]
        table.add_row(
            transport,
            f"{steady.capacity_per_s:,.0f}",
            f"{steady.requests_per_s:,.0f}",
            f"{len(steady.latencies_s[arm]):,}",
            str(steady.errors),
            *(f"{one:.2f}" for one in own),
            *(f"{a - b:+.2f}" for a, b in zip(own, direct, strict=True)),
        )
    return table


if __name__ == "__main__":
    typer.run(main)
