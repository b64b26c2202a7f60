"""`python -m benchmarks.overhead`: what the sidecar costs behind a real Envoy, against the least it could."""

import json
import os
import platform
import signal
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.overhead.arms import BESIDE, BESIDE_EMPTY, EMPTY, GRPCIO, MODEL, SIDECAR, THIN, Arm, Bench
from benchmarks.overhead.processes import BenchmarkError, Processes
from benchmarks.overhead.report import BUSY, REQUEST_CHUNKS, Report, print_report
from benchmarks.overhead.rounds import Laboratory, Round

LOADS = ((1, 0), (BUSY, 0), (BUSY, REQUEST_CHUNKS))
STREAMS = {
    100: 10,
    1000: 1,
}  # chunks and the pause between them in ms: a second each, so only the chunks differ


class Part(StrEnum):
    """What can be measured alone."""

    REQUESTS = "requests"
    CHUNKS = "chunks"


def main(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="how often each arm has its turn")] = 9,
    duration_s: Annotated[float, typer.Option(min=0.5, help="of each turn")] = 1.0,
    only: Annotated[Part | None, typer.Option(help="measure this part alone")] = None,
    backends: Annotated[int, typer.Option(min=1, max=256)] = 16,
    envoy_workers: Annotated[int, typer.Option(min=1)] = 1,
    full_metrics: Annotated[
        bool, typer.Option(help="backends print 48 KB at /metrics, as vLLM does")
    ] = False,
    null: Annotated[
        bool, typer.Option(help="the empty server in both places: what noise alone gives")
    ] = False,
    beside: Annotated[
        str | None, typer.Option(help="another Python 3.11, which the thin servers run on as well")
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="write everything measured here")] = None,
) -> None:
    """Compare the sidecar on each transport with an empty ext_proc server, and with no processor at all."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are ended, as on Ctrl-C
    console = Console(width=None if sys.stdout.isatty() else 120)
    settings = {
        "rounds": rounds,
        "duration_s": duration_s,
        "backends": backends,
        "envoy_workers": envoy_workers,
        "full_metrics": full_metrics,
        "null": null,
        "cores": os.cpu_count(),
        "machine": platform.platform(),
        "python": f"{platform.python_version()}, {platform.python_compiler()}",
        "beside": beside,
    }
    report = Report(settings)
    try:
        _measure(report, only, console)
    except BenchmarkError as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error
    print_report(report, console)
    if json_path:
        json_path.write_text(json.dumps(report.document(), indent=1))
    if not all(verdict.is_kept for verdict in report.verdicts()):
        raise typer.Exit(2)


def _measure(report: Report, only: Part | None, console: Console) -> None:
    settings = report.settings
    count, duration_s = settings["backends"], settings["duration_s"]
    with tempfile.TemporaryDirectory(prefix="extproc-overhead-") as name, Processes(Path(name)) as processes:
        console.print("starting Envoy, the backends and both servers")
        bench = Bench(processes, Path(name), count, settings["envoy_workers"], settings["full_metrics"])
        arms = [bench.direct()]
        for transport in (GRPCIO, THIN):
            arms.append(bench.empty(transport))
            is_null = settings["null"]
            arms.append(bench.empty(transport, SIDECAR[transport]) if is_null else bench.sidecar(transport))
        arms.append(bench.sidecar(THIN, MODEL, asks_model=True))
        if settings["beside"]:
            arms.append(bench.empty(THIN, BESIDE_EMPTY, settings["beside"]))
            arms.append(bench.sidecar(THIN, BESIDE, settings["beside"]))
        laboratory = Laboratory(processes, count)
        console.print("servers without requests")
        for arm in arms[1:]:
            report.backgrounds[arm.name] = laboratory.background(arm, max(2.0, duration_s))
        for number in range(settings["rounds"]):
            console.print(f"round {number + 1} of {settings['rounds']}")
            turns = arms[:: -1 if number % 2 else 1]  # nobody always comes first
            report.rounds += _round(laboratory, turns, settings, only)


def _round(
    laboratory: Laboratory, arms: list[Arm], settings: dict[str, Any], only: Part | None
) -> list[Round]:
    duration_s = settings["duration_s"]
    found: list[Round] = []
    if only is not Part.CHUNKS:
        found += [laboratory.round(arm, count, duration_s, chunks) for count, chunks in LOADS for arm in arms]
    if only is not Part.REQUESTS:
        plain = {*EMPTY.values(), *SIDECAR.values()}
        streaming = [(arm, *kind) for arm in arms if arm.name in plain for kind in STREAMS.items()]
        found += [
            laboratory.round(arm, settings["backends"], duration_s, chunks, pause_ms)
            for arm, chunks, pause_ms in streaming
        ]
    return found


if __name__ == "__main__":
    typer.run(main)
