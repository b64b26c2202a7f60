"""Where `guard.max_active: auto` settles in the twin, against the true knee of each machine.

    python -m benchmarks.limits [--seeds 2,3] [--only TEXT]

The knee is that of a broken stick through the median TTFT of one machine with a fixed number of requests in
flight, which knows nothing of the limit. What is settled is the second half of a run: its median, and its
middle 90 %.
"""

import argparse
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.evaluator import CONTEXT, scenario, workload_of
from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.simulated_server import Pace, Server, ServerSpec
from extproc.lab.evaluation.workload_text import WorkloadSpec
from extproc.lab.rivals.choice import RivalSetting
from extproc.lab.rivals.layered import Layered, layered_rules
from extproc.lab.rivals.policy import Ended
from extproc.lab.traffic.arrivals import Curve, Floats
from extproc.learning.analysis.broken_stick import Medians, fit_stick

CHAT = "prompt=lognormal:250:0.9 output=lognormal:64:0.5"
TWO_CLASS = "prompt=mix:100:4000:0.1 output=lognormal:64:0.5"
LONG_ANSWERS = "prompt=lognormal:100:0.5 output=lognormal:300:0.8"
MODES = ("reject", "queue")
LOADS = (0.95, 1.3)
"""With much less nobody comes near the limit."""
DURATION_S = 400.0
KNEE_REQUESTS, KV_KNEE_REQUESTS = 4_000, 20_000
"""Enough for a knee within 3 %, where KV memory is the bound; with a tenth they differed by 10 %."""
LONGEST = 2.0


@dataclass(frozen=True)
class Lull:
    """Four minutes in which a fifth of the requests come, after one that shows the knee."""

    peak: float = 1.0

    def at(self, at_s: Floats) -> Floats:
        """The rate at some times."""
        return np.where((at_s >= 60) & (at_s < 300), 0.2, 1.0)


@dataclass(frozen=True)
class Case:
    """A fleet, what arrives there at some loads, and what happens to it meanwhile."""

    name: str
    fleet: str
    lengths: str = CHAT
    loads: tuple[float, ...] = LOADS
    arrivals: str = "poisson:{load}x"
    curve: Curve | None = None
    routers: int = 1
    pace: Pace | None = None
    knee_requests: int = KNEE_REQUESTS

    def workload(self, load: float) -> WorkloadSpec:
        """What arrives at this share of the capacity."""
        spec = workload_of(f"{self.arrivals.format(load=load)} {self.lengths} for={DURATION_S}")
        return spec if self.curve is None else replace(spec, curve=self.curve)


def half_for_a_while(now_s: float) -> float:
    return 0.5 if 150 <= now_s < 250 else 1.0


def any_by_a_fifth(now_s: float) -> float:
    """Each moment's own, and the same in every run."""
    return float(np.exp(0.2 * np.random.default_rng(int(now_s * 1e6)).standard_normal()))


ONE_64, ONE_KV = "a100-8b*1:64", "a100-8b*1:256:16384"
OVERLOAD = (1.3,)
CASES = (
    Case("equal", "3xa100-8b*1:8:16384"),
    Case("unequal", "a100-8b*1:8:16384,a100-8b*0.6:8:16384,a100-8b*0.35:8:16384"),
    Case("cpu-tiny, 4", "cpu-tiny*1:4"),
    Case("64", ONE_64),
    Case("256", "a100-8b*1:256"),
    Case("h100-70b, 128", "h100-70b-tp4*1:128"),
    Case("KV", ONE_KV, knee_requests=KV_KNEE_REQUESTS),
    Case("KV, l4", "l4-8b*1:256", knee_requests=KV_KNEE_REQUESTS),
    Case("KV, long answers", "a100-8b*1:256:32768", LONG_ANSWERS, knee_requests=KV_KNEE_REQUESTS),
    Case("64, two-class", ONE_64, TWO_CLASS),
    Case("KV, two-class", "a100-8b*1:256:32768", TWO_CLASS, knee_requests=KV_KNEE_REQUESTS),
    Case("64, 70 by HTTP", "a100-8b*1:64:400000:70"),
    Case("256, 40 by HTTP", "a100-8b*1:256:400000:40"),
    *(
        Case(f"{name}, {what}", fleet, lengths, OVERLOAD, knee_requests=requests, **difference)
        for name, fleet, lengths, requests in (
            ("64", ONE_64, CHAT, KNEE_REQUESTS),
            ("64, two-class", ONE_64, TWO_CLASS, KNEE_REQUESTS),
            ("KV", ONE_KV, CHAT, KV_KNEE_REQUESTS),
        )
        for what, difference in (
            ("half speed for 100 s", {"pace": half_for_a_while}),
            ("noise of 20 %", {"pace": any_by_a_fifth}),
            ("3 routers", {"routers": 3}),
            ("bursts", {"arrivals": "bursts:{load}x:2.5:30:6"}),
            ("lull of 4 minutes", {"curve": Lull()}),
        )
    ),
)


def closed_loop(spec: ServerSpec, case: Case, in_flight: int) -> tuple[float, float]:
    """The median TTFT, and the mean of running requests, with this many always in flight."""
    server = Server(spec)
    requests = case.workload(1.0).sample(case.knee_requests, CONTEXT, np.random.default_rng(0))
    sent_s: list[float] = []
    ttft_s: dict[str, float] = {}
    running: list[int] = []

    def send(now_s: float) -> None:
        request = requests[len(sent_s)]
        server.submit(str(len(sent_s)), request.prompt_tokens, request.output_tokens, now_s, request.content)
        sent_s.append(now_s)

    for _ in range(in_flight):
        send(0.0)
    while len(sent_s) < len(requests) and (now_s := server.run_ends_s) is not None:
        result = server.end_run(now_s)
        for number in result.begun:
            ttft_s.setdefault(number, now_s - sent_s[int(number)])
        for _ in result.finished[: len(requests) - len(sent_s)]:
            running.append(server.engine.running)
            send(now_s)
    settled = len(requests) // 4
    late = [each_s for number, each_s in ttft_s.items() if int(number) >= settled]
    return float(np.median(late)), float(np.mean(running[len(running) // 2 :]))


@cache
def knee(spec: ServerSpec, case: Case) -> float:
    """The load at which the broken stick through the medians bends."""
    _, most = closed_loop(spec, case, 512)
    shares = np.concatenate(
        [np.linspace(0.2, 0.9, 8), np.linspace(0.94, 1.3, 10), np.linspace(1.4, LONGEST, 4)]
    )
    loads = sorted({max(1, round(most * share)) for share in shares.tolist()})
    ttft_s = [closed_loop(spec, case, load)[0] for load in loads]
    fitted = fit_stick(Medians(np.array(loads, float), np.array(ttft_s), np.ones(len(loads))), 1 / 3)
    if fitted is None:
        raise ValueError(f"no knee in {spec}")
    return fitted[0].knee


def knee_of(spec: ServerSpec, case: Case) -> float:
    """Each machine's with each kind of requests is measured once."""
    return knee(replace(spec, name=""), Case("", "", case.lengths, knee_requests=case.knee_requests))


def limits(case: Case, load: float, mode: str, seed: int) -> tuple[np.ndarray, float]:
    """One router's limits of all backends in the second half, and the share of requests refused."""
    rules = layered_rules({"guard": {"max_active": "auto"}, "admission": {"mode": mode}})
    scene = replace(scenario(case.fleet, case.workload(load)), routers=case.routers, layered=rules)
    seen: list[list[int]] = []
    watched: list[Layered] = []

    class Watched(Layered):
        def ended(self, request: Ended, now_s: float) -> None:
            super().ended(request, now_s)
            if self is watched[0] and DURATION_S / 2 <= now_s < DURATION_S:
                seen.append([member.limits.max_active for member in self.core.registry.members])

    def make(setting: RivalSetting) -> Layered:
        watched.append(
            Watched([server.spec.name for server in setting.servers], setting.layered, setting.rng)
        )
        return watched[-1]

    result = evaluate(scene, "watched", seed, policies={"watched": make}, pace=case.pace)
    return np.array(seen), result.refused / result.requests


def main() -> None:
    """Print the table, and what is worst in it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="2,3", help="not 1, with which the constants were chosen")
    parser.add_argument("--only", default="", help="cases whose name contains it")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    table = Table("fleet", "admission", "load", "backend", "knee", "settled", "5 % to 95 %", "off", "refused")
    worst: dict[str, float] = {}
    for case in (each for each in CASES if options.only in each.name):
        specs = parse_fleet(case.fleet)
        for mode, load in ((mode, load) for mode in MODES for load in case.loads):
            runs = [limits(case, load, mode, seed) for seed in seeds]
            refused = np.mean([share for _, share in runs])
            for backend, spec in enumerate(specs):
                at = knee_of(spec, case)
                quantiles = np.array([np.quantile(seen[:, backend], [0.05, 0.5, 0.95]) for seen, _ in runs])
                off = [f"{middle / at - 1:+.0%}" for middle in quantiles[:, 1]]
                worst[mode] = max(worst.get(mode, 0.0), np.abs(quantiles[:, 1] / at - 1).max())
                table.add_row(
                    case.name, mode, f"{load:g}", spec.name, f"{at:.1f}",
                    ", ".join(f"{middle:.0f}" for middle in quantiles[:, 1]),
                    f"{quantiles[:, 0].min():.0f} to {quantiles[:, 2].max():.0f}",
                    ", ".join(off), f"{refused:.0%}",
                )  # fmt: skip
    console = Console(width=130)
    console.print(table)
    for mode, off_by in worst.items():
        console.print(f"admission.mode {mode}: off by {off_by:.0%} at most")


if __name__ == "__main__":
    main()
