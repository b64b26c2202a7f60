"""The policy against its rivals and the oracle, on scenarios to tune on and on others to report.

    python -m benchmarks.policies --tune            what changes are judged on while they are made
    python -m benchmarks.policies --report          others, with other seeds, which nothing was tuned to
    python -m benchmarks.policies --report --only two-class --policies layered,oracle --seeds 5
    python -m benchmarks.policies --fleet "4xa100-8b*1:256" --workload "trace:FILE@0.7 for=600"

Each row is one scenario; of each policy the median over the seeds of p99 TTFT in seconds, and goodput: the
share of all requests, refused ones included, with their first token within 2 s. `layered` is the production
policy at its defaults, which know nothing of these 2 s, with the shipped model, which knows none of these
machines but those of `local`; it alone refuses requests, in brackets how many, and p99 is of the others.

Below stands what was to be shown, scenario by scenario, and whether it is; status 2 where some of it is not.
"""

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.evaluator import scenario
from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.nuisances import NO_NUISANCES, ColdStart, Nuisances, Spans
from extproc.lab.evaluation.result import PolicyRun
from extproc.lab.rivals.choice import parse_policies

POLICIES = ",".join(
    (
        "layered",
        "least-request",
        "least-in-flight",
        "peak-ewma",
        "queue-kv",
        "token-load",
        "active-request",
        "least-latency",
        "oracle",
    )
)
GOODPUT_OF_ORACLE = 0.95
P99_OF_BEST_RIVAL = 1.05
P99_OF_BEATEN = 0.7
BEATEN = ("least-request", "queue-kv")
"""Whom it has to beat by 30 % where machines or prompts are unequal."""
NO_RIVALS = {"layered", "layered-no-model", "oracle", "shedding-oracle"}


class Case(NamedTuple):
    """The input of all policies: a fleet, a workload, routers that do not see each other, nuisances."""

    fleet: str
    workload: str
    routers: int
    nuisances: Nuisances = NO_NUISANCES


Cases = Mapping[str, tuple[str, str, int] | tuple[str, str, int, Nuisances]]

TUNE: Cases = {
    f"{name} {load:g}": (fleet, f"{workload}@{load:g}", 1)
    for name, fleet, workload in (
        ("equal", "equal", "chat"),
        ("local", "local", "chat"),
        ("one-slow", "one-slow", "chat"),
        ("two-class", "local", "two-class"),
    )
    for load in (0.7, 0.95, 1.2)
} | {
    "bursts 0.7": ("local", "bursts@0.7", 1),
    "conversations 0.7": ("local", "conversations@0.7", 1),
    "three routers 0.95": ("local", "chat@0.95", 3),
}
"""Fleet, workload and routers, by name; seeds 1, 2, ..."""

_EQUAL = "3xa100-8b*0.8:12:24576"
_MIXED = "a100-8b*0.9:12:24576,a100-8b*0.5:10:20480,l4-8b*0.8:12:24576"
_ONE_FAILS = "4xa100-8b*0.8:12:24576,a100-8b*0.8:12:24576!100-160"
_SLOW_ONE_FAILS = "2xa100-8b*0.9:12:24576,a100-8b*0.5:10:20480!100-160,l4-8b*0.8:12:24576"
_ELASTIC = "2xa100-8b*0.9:12:24576,a100-8b*0.9:12:24576@-150,2xa100-8b*0.5:10:20480@100-"
_HIDDEN_QUEUE = "2xa100-8b*0.9:12:24576:14,a100-8b*0.5:10:20480:12"
_ONE_SLOW = "3xa100-8b*0.8:12:24576,a100-8b*0.2:12:24576"
_FULL = "2xa100-8b*0.9:256:400000,a100-8b*0.5:256:400000,a100-8b*0.7:256:400000"
ALL_OF_IT = Nuisances(0.2, 0.2, 2, Spans(30.0, 0.5), Spans(60.0, 15.0), ColdStart(20.0, 2.0))
_LENGTHS = "prompt=lognormal:400:0.7 output=lognormal:90:0.6 for=300"
_TWO_CLASS = "prompt=mix:150:3000:0.15 output=lognormal:50:0.6 for=300"
REPORT: Cases = {
    "equal 0.95": (_EQUAL, f"poisson:0.95x {_LENGTHS}", 1),
    "mixed 0.7": (_MIXED, f"poisson:0.7x {_LENGTHS}", 1),
    "mixed 0.95": (_MIXED, f"poisson:0.95x {_LENGTHS}", 1),
    "mixed 1.2": (_MIXED, f"poisson:1.2x {_LENGTHS}", 1),
    "one-slow 0.95": (_ONE_SLOW, f"poisson:0.95x {_LENGTHS}", 1),
    "two-class 0.7": (_MIXED, f"poisson:0.7x {_TWO_CLASS}", 1),
    "two-class 0.95": (_MIXED, f"poisson:0.95x {_TWO_CLASS}", 1),
    "bursts 0.6": (_MIXED, f"bursts:0.6x:2:40:8 {_LENGTHS}", 1),
    "conversations 0.7": (
        _MIXED,
        "poisson:0.7x prompt=lognormal:120:0.7 output=lognormal:80:0.5 for=300 turns=5:15:600:6",
        1,
    ),
    "three routers 0.9": (_MIXED, f"poisson:0.9x {_LENGTHS}", 3),
    "one fails 0.7": (_ONE_FAILS, f"poisson:0.7x {_LENGTHS}", 1),
    "a slow one fails 0.7": (_SLOW_ONE_FAILS, f"poisson:0.7x {_LENGTHS}", 1),
    "joining, leaving 0.8": (_ELASTIC, f"poisson:0.8x {_LENGTHS}", 1),
    "hidden queue 0.9": (_HIDDEN_QUEUE, f"poisson:0.9x {_LENGTHS}", 1),
    "daily 0.7": (_MIXED, f"daily:0.7x:0.5:300 {_LENGTHS}", 1),
} | {
    name: (_FULL, f"{arrivals} prompt=lognormal:900:0.9 output=lognormal:200:0.7 for=120", 1, nuisances)
    for name, arrivals, nuisances in (
        ("full noise 0.8", "poisson:0.8x", Nuisances(ttft_noise=0.3, speed_noise=0.3)),
        ("full stalls 0.8", "poisson:0.8x", Nuisances(stalls=Spans(20.0, 0.8))),
        ("full frozen gauges 0.8", "poisson:0.8x", Nuisances(frozen_gauges=Spans(40.0, 20.0))),
        ("full cold 0.7", "poisson:0.7x", Nuisances(cold_start=ColdStart(30.0, 3.0))),
        ("full retries 1.2", "poisson:1.2x", Nuisances(retries=2)),
        ("full bursts with retries 0.8", "bursts:0.8x:3:60:12", Nuisances(retries=2)),
        ("full all of it 0.8", "bursts:0.8x:2:60:12", ALL_OF_IT),
    )
}
"""Other machines, lengths and seeds (101, 102, ...) than those above."""

_OF_EQUAL_MACHINES = {"equal", _EQUAL, _ONE_FAILS}


def measured(
    case: Case, policies: Sequence[str], seeds: range, is_model_used: bool
) -> dict[str, list[PolicyRun]]:
    scene = replace(scenario(case.fleet, case.workload), routers=case.routers, nuisances=case.nuisances)
    if not is_model_used:
        scene = replace(scene, layered=replace(scene.layered, model_file=None))
    return {policy: [evaluate(scene, policy, seed) for seed in seeds] for policy in policies}


def p99_s(runs: Sequence[PolicyRun]) -> float:
    return statistics.median(run.ttft_s(99) or math.inf for run in runs)


def goodput(runs: Sequence[PolicyRun]) -> float:
    return statistics.median(run.goodput for run in runs)


def row(*cells: str) -> str:
    """Of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def cell(runs: Sequence[PolicyRun], is_delay: bool) -> str:
    refused = statistics.median(run.refused_share for run in runs)
    time_s, share = p99_s(runs), goodput(runs)
    if is_delay:
        time_s = statistics.median(run.delay_s(99) or 0.0 for run in runs)
        share = statistics.median(run.good for run in runs)
    return f"{time_s:.2f} s, {share:.0%}" + (f" ({refused:.1%})" if refused else "")


class Claims:
    """What was to be shown of each scenario: each figure with its bound, and whether it is kept."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.missed = 0

    def judge(self, name: str, is_unequal: bool, found: Mapping[str, Sequence[PolicyRun]]) -> None:
        """Take one scenario to the table; of policies that did not run nothing is said."""
        rivals = {policy: p99_s(runs) for policy, runs in found.items() if policy not in NO_RIVALS}
        if "layered" not in found or "oracle" not in found or not rivals:
            return
        own_s, best = p99_s(found["layered"]), min(rivals, key=lambda policy: rivals[policy])
        cells = [
            self._at_least(goodput(found["layered"]) / goodput(found["oracle"]), GOODPUT_OF_ORACLE),
            f"{self._at_most(own_s / rivals[best], P99_OF_BEST_RIVAL)} {best}",
        ]
        for beaten in BEATEN:
            ratio = own_s / rivals[beaten] if beaten in rivals else None
            bound = P99_OF_BEATEN if is_unequal else P99_OF_BEST_RIVAL
            cells.append("" if ratio is None else self._at_most(ratio, bound))
        self.lines.append(row(name, *cells))

    def table(self) -> str:
        """The verdict in Markdown."""
        head = [
            "verdict",
            f"goodput / oracle's, >= {GOODPUT_OF_ORACLE:g}",
            f"p99 / best rival's, <= {P99_OF_BEST_RIVAL:g}",
            *(f"p99 / {beaten}, <= {P99_OF_BEATEN:g} on unequal machines" for beaten in BEATEN),
        ]
        return "\n".join([row(*head), f"|{'---|' * len(head)}", *self.lines])

    def _at_least(self, value: float, bound: float) -> str:
        return self._shown(value, is_kept=value >= bound)

    def _at_most(self, value: float, bound: float) -> str:
        return self._shown(value, is_kept=value <= bound)

    def _shown(self, value: float, is_kept: bool) -> str:
        self.missed += not is_kept
        return f"{value:.2f}" if is_kept else f"**{value:.2f}**"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--tune", action="store_true")
    which.add_argument("--report", action="store_true")
    which.add_argument("--workload", help="one scenario, a workload as of `extproc evaluate`, on --fleet")
    parser.add_argument("--fleet", default="local", help="as of `extproc evaluate`")
    parser.add_argument("--routers", type=int, default=1, help="with --workload")
    parser.add_argument("--policies", default=POLICIES)
    parser.add_argument("--only", default="", help="scenarios whose name begins so; several with commas")
    parser.add_argument("--nasty", action="store_true", help="with --workload: all nuisances of the report")
    parser.add_argument("--delay", action="store_true", help="show p99 of the delay, and good")
    parser.add_argument("--without-model", action="store_true", help="layer 2 has no model")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    names = parse_policies(asked.policies)
    scenarios: Cases
    scenarios, first = (TUNE, 1) if asked.tune else (REPORT, 101)
    if asked.workload is not None:
        nuisances = ALL_OF_IT if asked.nasty else NO_NUISANCES
        scenarios = {asked.workload: (asked.fleet, asked.workload, asked.routers, nuisances)}
    print(row("p99 of the delay, good" if asked.delay else "p99 TTFT, goodput", *names))
    print(f"|{'---|' * (1 + len(names))}")
    kept: dict[str, list[PolicyRun]] = {}
    claims = Claims()
    for name, what in scenarios.items():
        if name.startswith(tuple(asked.only.split(","))):
            case = Case(*what)
            found = measured(case, names, range(first, first + asked.seeds), not asked.without_model)
            print(row(name, *(cell(runs, asked.delay) for runs in found.values())), flush=True)
            claims.judge(name, case.fleet not in _OF_EQUAL_MACHINES, found)
            kept[name] = [run for runs in found.values() for run in runs]
    print(f"\n{claims.table()}\n\n{claims.missed} missed (bold)")
    if asked.json is not None:
        asked.json.write_bytes(msgspec.json.encode(kept))
    if claims.missed:
        raise SystemExit(2)


if __name__ == "__main__":
    main()
