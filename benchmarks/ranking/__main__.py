"""`python -m benchmarks.ranking`: the sidecar against Envoy's own policies in real time, and as predicted.

For each scenario and seed the arms run side by side for `--duration-s`, on the same requests at the same
moments; then the evaluator plays the same requests to the same policies on the same fleet, in virtual time.
It knows nothing of what a request takes outside of the engines; that is measured, by arm, and given to it.
"""

import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import typer
import uvloop
from rich.console import Console

from benchmarks.evaluator import scenario
from benchmarks.overhead.processes import Processes, machine_busy_s
from benchmarks.ranking.arms import ARMS, Arms
from benchmarks.ranking.figures import Figures, predicted
from benchmarks.ranking.load import Measurement, put_load
from benchmarks.ranking.report import figures_table, gain_lines, ranking_lines
from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.scenario import Scenario
from extproc.lab.traffic.arrivals import Arrival, OpenLoopTraffic
from extproc.lab.traffic.step_requests import DrawnRequests, RecordedRequests, StepRequests
from extproc.lab.traffic.trace import Replay
from extproc.lab.traffic.workload import Step

SCENARIOS = {
    f"{workload} {load:g}": ("local", f"{workload}@{load:g}")
    for workload in ("chat", "two-class")
    for load in (0.7, 0.95)
}
"""Fleet and workload: the three unequal machines of `extproc up`."""
FIRST_SEED = 201
"""The first of the seeds; none of `benchmarks.policies`."""
_SEEDS_APART = 1000


@dataclass(frozen=True, slots=True)
class SameRequests:
    """Traffic of exactly these requests."""

    requests: Sequence[Arrival]

    def arrivals(self, rng: np.random.Generator) -> Iterator[Arrival]:
        """Return them, whatever the seed."""
        return iter(self.requests)


@dataclass(frozen=True, slots=True)
class Plan:
    """A scenario, and the one step of load that it is in real time."""

    scene: Scenario
    traffic: OpenLoopTraffic | Replay

    @property
    def step(self) -> Step:
        """All of it."""
        if isinstance(self.traffic, OpenLoopTraffic):
            return Step(1, self.traffic.rate, self.traffic.duration_s)
        trace = self.traffic.trace
        rate = len(trace) / trace.duration_s
        return Step(1, rate, trace.duration_s + 0.5 / rate)  # the last request is within it, no other one is

    def requests(self) -> StepRequests:
        """Return the requests, from the first one on."""
        if isinstance(self.traffic, OpenLoopTraffic):
            return DrawnRequests(self.traffic.lengths)
        return RecordedRequests(self.traffic.trace)

    def twin(self, seed: int, outside_s: float = 0.0) -> Scenario:
        """The scenario with the requests that are sent with this seed; each takes this time beside."""
        requests = list(
            self.requests().of_step(self.step, 1, self.traffic.max_model_len, np.random.default_rng(seed))
        )
        servers = tuple(
            replace(spec, profile=replace(spec.profile, request_s=outside_s * spec.profile.speed))
            for spec in self.scene.servers
        )
        return replace(self.scene, servers=servers, traffic=SameRequests(requests))


@dataclass(frozen=True, slots=True)
class Found:
    """A scenario's figures by policy and seed, real and of each draw, and how quiet the machine was.

    `outside_s` is as in `Measurement`, by policy.
    """

    real: Mapping[str, Sequence[Figures]]
    outside_s: Mapping[str, float]
    draws: Sequence[Mapping[str, Sequence[Figures]]]
    max_late_s: float
    own_cores: float
    others_cores: float


def main(
    *,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="runs of each scenario")] = 3,
    duration_s: Annotated[float, typer.Option(min=1, help="of load, for each seed")] = 120.0,
    draws: Annotated[int, typer.Option(min=1, max=_SEEDS_APART, help="how often it is predicted")] = 20,
    only: Annotated[str, typer.Option(help="scenarios whose name begins so")] = "",
    workload: Annotated[str | None, typer.Option(help="one scenario, as of `extproc evaluate`")] = None,
    fleet: Annotated[str, typer.Option(help="with --workload, as of `extproc evaluate`")] = "local",
    json_path: Annotated[Path | None, typer.Option("--json", help="write all figures here")] = None,
) -> None:
    """The sidecar against LEAST_REQUEST and ROUND_ROBIN of Envoy itself: measured, and predicted."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are ended
    console = Console(width=None if sys.stdout.isatty() else 160, soft_wrap=False, highlight=False)
    found = {}
    scenarios = SCENARIOS if workload is None else {workload: (fleet, workload)}
    for name, what in scenarios.items():
        if name.startswith(only):
            scene = scenario(*what, duration_s)
            assert isinstance(scene.traffic, OpenLoopTraffic | Replay)
            found[name] = compare(Plan(scene, scene.traffic), range(FIRST_SEED, FIRST_SEED + seeds), draws)
            show(console, name, found[name])
    if json_path:
        json_path.write_bytes(msgspec.json.encode(found))


def compare(plan: Plan, seeds: range, draws: int) -> Found:
    """Measure, then predict."""
    began_s, busy_s, own_s = time.monotonic(), machine_busy_s(), 0.0
    runs = []
    for seed in seeds:
        run, run_cpu_s = measure(plan, seed)
        runs.append(run)
        own_s += run_cpu_s
    lasted_s, busy_s = time.monotonic() - began_s, machine_busy_s() - busy_s
    outside_s = {policy: statistics.mean(run.outside_s[policy] for run in runs) for policy in ARMS}
    return Found(
        real={policy: [run.figures[policy] for run in runs] for policy in ARMS},
        outside_s=outside_s,
        draws=[predict(plan, outside_s, seeds, draw) for draw in range(draws)],
        max_late_s=max(run.max_late_s for run in runs),
        own_cores=own_s / lasted_s,
        others_cores=max(0.0, busy_s - own_s) / lasted_s,
    )


def measure(plan: Plan, seed: int) -> tuple[Measurement, float]:
    """One seed in real time, and the CPU time that it took."""
    scene, own_s = plan.scene, time.process_time()
    with tempfile.TemporaryDirectory(prefix="extproc-ranking-") as name, Processes(Path(name)) as processes:
        context = plan.traffic.max_model_len
        arms = Arms(processes, Path(name), scene.servers, scene.gauge_delay_s, context)
        started = {policy: arms.start(policy) for policy in ARMS}
        run = uvloop.run(put_load(started, plan.step, plan.requests, context, seed, scene.slo_s))
        return run, processes.cpu_s() - own_s


def predict(
    plan: Plan, outside_s: Mapping[str, float], seeds: range, draw: int
) -> Mapping[str, Sequence[Figures]]:
    """All seeds in virtual time; `draw` changes nothing but what the policies draw."""
    return {
        policy: [
            predicted(evaluate(plan.twin(seed, outside_s[policy]), policy, seed * _SEEDS_APART + draw))
            for seed in seeds
        ]
        for policy in ARMS
    }


def show(console: Console, name: str, found: Found) -> None:
    """The table of a scenario, the gains and the order."""
    requests = sum(run.requests for run in next(iter(found.real.values())))
    title = f"{name}: {requests} requests, medians of {len(found.real[ARMS[0]])} seeds"
    console.print(figures_table(title, found.real, found.draws))
    console.print("The sidecar against LEAST_REQUEST:")
    for line in gain_lines(found.real, found.draws):
        console.print(line)
    console.print("The order by p99 TTFT:")
    for line in ranking_lines(found.real, found.draws):
        console.print(line)
    outside = ", ".join(f"{value_s * 1e3:.1f} ms ({policy})" for policy, value_s in found.outside_s.items())
    console.print(f"Outside of the engines a request took {outside}; what is predicted has it added.")
    console.print(
        f"Requests were sent up to {found.max_late_s * 1e3:.0f} ms late. The benchmark took "
        f"{found.own_cores:.2f} cores, other work on the machine {found.others_cores:.2f}.\n"
    )


if __name__ == "__main__":
    typer.run(main)
