"""What an evaluated request costs, and how far the evaluator reaches.

    python -m benchmarks.evaluator                 cost by policy on 10 backends
    python -m benchmarks.evaluator scale           1,000 backends, 1,000,000 requests, in one run
    python -m benchmarks.evaluator scale --policy layered

The cost is CPU time of the whole run by its requests, traffic included, the best of some runs: their work is
the same, so whatever one takes longer is other programs' doing. Beside it stands what this CPU takes, at its
best, for a well-known piece of work, `sum(range(1000))`: the two may be compared across machines.
"""

import argparse
import resource
import sys
import time
import timeit
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.offered_load import capacities_per_s, offered_load
from extproc.lab.evaluation.scenario import Scenario
from extproc.lab.evaluation.trace_spec import TraceSpec
from extproc.lab.evaluation.workload_text import WorkloadSpec, parse_workload
from extproc.lab.load.trace_file import read_length_file, read_trace_file
from extproc.lab.rivals.choice import POLICIES
from extproc.lab.rivals.layered import layered_rules

SIMPLE = ("round-robin", "random", "least-request", "least-in-flight")
BUDGET_US = 30.0
FLEETS = ("10xa100-8b*1:256", "10xa100-8b*1:8:16384")
CONTEXT = 8192
MODEL_FILE = Path(__file__).parents[1] / "models" / "zone2_predictor.json"
SCALE_LOAD = 0.7


def workload_of(text: str) -> WorkloadSpec:
    """That of a text that names no trace."""
    spec = parse_workload(text, read_length_file, read_trace_file)
    assert isinstance(spec, WorkloadSpec)
    return spec


def scenario(
    fleet: str, workload: str | WorkloadSpec, duration_s: float | None = None, requests: int | None = None
) -> Scenario:
    specs = parse_fleet(fleet)
    spec: WorkloadSpec | TraceSpec
    if isinstance(workload, str):
        spec = parse_workload(workload, read_length_file, read_trace_file)
    else:
        spec = workload
    if isinstance(spec, TraceSpec):
        spec = replace(spec, first_s=spec.first_s if duration_s is None else duration_s)
    else:
        if requests is not None:
            duration_s = requests / (spec.rate * sum(capacities_per_s(specs, spec.sample, CONTEXT)))
        if duration_s is not None:
            spec = replace(spec, duration_s=duration_s)
    offered = offered_load(spec, specs)
    return Scenario(
        servers=specs,
        capacities_per_s=offered.capacities_per_s,
        traffic=offered.traffic,
        layered=layered_rules({}, MODEL_FILE.read_bytes()),
    )


def cost(policies: tuple[str, ...], runs: int, requests: int) -> bool:
    table = Table(
        "fleet", "policy", "requests", "CPU us a request", "sum(range(1000)), us", title="best of many runs"
    )
    is_kept = True
    for fleet in FLEETS:
        scene = scenario(fleet, "chat@0.7", requests=requests)
        for policy in policies:
            best_us, yard_us, answered = measured(scene, policy, runs if policy in SIMPLE else 3)
            is_kept &= policy not in SIMPLE or best_us <= BUDGET_US
            table.add_row(fleet, policy, f"{answered:,}", f"{best_us:.1f}", f"{yard_us:.1f}")
    Console().print(table)
    Console().print(f"Budget for simple policies: {BUDGET_US:g} us.")
    return is_kept


def measured(scene: Scenario, policy: str, runs: int) -> tuple[float, float, int]:
    costs_us, yards_us, requests = [], [], 0
    for _ in range(runs):
        started_s = time.process_time()
        requests = evaluate(scene, policy, seed=1).requests
        costs_us.append((time.process_time() - started_s) / requests * 1e6)
        yards_us.append(min(timeit.repeat("sum(range(1000))", number=10, repeat=3)) / 10 * 1e6)
    return min(costs_us), min(yards_us), requests


def scale(policy: str, backends: int, requests: int) -> None:
    scene = scenario(f"{backends}xa100-8b*1:32:65536", f"chat@{SCALE_LOAD:g}", requests=requests)
    shown = 0.0

    def report(now_s: float) -> None:
        nonlocal shown
        if sys.stderr.isatty() and now_s - shown >= 1:
            shown = now_s
            print(f"\r{now_s:.0f} s simulated, {peak_mib():.0f} MiB", end="", file=sys.stderr)

    before_mib, wall_s, cpu_s = peak_mib(), time.monotonic(), time.process_time()
    result = evaluate(scene, policy, seed=1, report=report)
    wall_s, cpu_s = time.monotonic() - wall_s, time.process_time() - cpu_s
    Console().print(
        f"\n{policy}: {result.requests:,} requests on {backends:,} backends, {result.duration_s:.0f} s "
        f"simulated, in {wall_s / 60:.1f} minutes ({cpu_s / 60:.1f} of CPU, "
        f"{cpu_s / result.requests * 1e6:.0f} us a request); peak memory {peak_mib():.0f} MiB, "
        f"{before_mib:.0f} before it began; goodput {result.goodput:.1%}"
    )


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("what", nargs="?", choices=("cost", "scale"), default="cost")
    parser.add_argument("--policy", choices=tuple(POLICIES), default="least-request")
    parser.add_argument("--all", action="store_true", help="measure every policy's cost")
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--requests-per-run", type=int, default=1000)
    parser.add_argument("--backends", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=1_000_000)
    asked = parser.parse_args()
    if asked.what == "scale":
        scale(asked.policy, asked.backends, asked.requests)
    elif not cost(tuple(POLICIES) if asked.all else SIMPLE, asked.runs, asked.requests_per_run):
        raise SystemExit(2)


if __name__ == "__main__":
    main()
