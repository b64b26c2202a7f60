"""Recorded traffic on engines of full size, at many loads and fleets: what was to be shown, cell by cell.

    python -m benchmarks.grid AzureLLMInferenceTrace_conv.csv mooncake.jsonl
    python -m benchmarks.grid TRACE --fleets full-4,full-kinds --loads 0.9 --routers 1 --judged 0

Each row is one cell: of each policy *good*, p99 of the delay, and the share that was refused, all of them as
`extproc evaluate` has them, counted from the 120th second, everything at its default and no model. Then come
how many pairs of backends the estimate had in the right order, and its median error. A figure that misses
what was to be shown is in bold:

- *good* at least 0.95 of the shedding oracle's, and no more than 0.01 below the best rival's;
- p99 of the delay at most half of the best rival's, where that is above 2 s;
- at most 1.5 times as many refused as by the shedding oracle;
- 90 % of the pairs in the right order, and a median error below 20 %.

About ten seconds a cell and core. The last line counts the cells that keep each; status 2 where some do not.
"""

import argparse
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

from benchmarks.evaluator import scenario
from benchmarks.policies import row
from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.result import PolicyRun

FLEETS = ("full-4", "full-8", "full-mixed-4", "full-mixed-8", "full-kinds", "full-kinds-8")
LOADS = (0.5, 0.7, 0.8, 0.9, 0.95)
ROUTERS = (1, 3)
OWN, ORACLE = "layered-no-model", "shedding-oracle"
RIVALS = ("least-in-flight", "peak-ewma", "token-load-affinity", "lmetric")
FROM_S = 120.0
SEED = 1
"""A trace is the same with any seed; what the policies draw is not."""

GOOD_OF_ORACLE = 0.95
GOOD_BELOW_RIVAL = 0.01
P99_OF_RIVAL = 0.5
LATE_S = 2.0
REFUSED_OF_ORACLE = 1.5
REFUSED_BY_CHANCE = 0.002
"""A smaller refused share is not compared with the oracle's: a few requests make it."""
PAIRS = 0.9
ERROR = 0.2


class Cell(NamedTuple):
    """One place of the grid."""

    trace: str
    fleet: str
    load: float
    routers: int

    @property
    def name(self) -> str:
        """Return what the row is called."""
        routers = "" if self.routers == 1 else f", {self.routers} routers"
        return f"{self.fleet}, {Path(self.trace).stem}, {self.load:g}{routers}"


class Figure(NamedTuple):
    """One claim about a cell: its name, the figure, and whether the claim is kept."""

    claim: str
    text: str
    is_kept: bool


def measured(cell: Cell, seconds: float, judged: int) -> dict[str, PolicyRun]:
    """Play one cell to all policies."""
    scene = scenario(cell.fleet, f"trace:{cell.trace}@{cell.load:g} for={seconds:g}")
    scene = replace(scene, routers=cell.routers, from_s=FROM_S, judged=judged)
    return {policy: evaluate(scene, policy, SEED) for policy in (OWN, ORACLE, *RIVALS)}


def figures(found: dict[str, PolicyRun]) -> Iterator[Figure]:
    """Hold a cell against what was to be shown."""
    own, oracle, rivals = found[OWN], found[ORACLE], [found[name] for name in RIVALS]
    best_good = max(rival.good for rival in rivals)
    best_delay_s = min(_delay_s(rival) for rival in rivals)
    yield Figure("good / oracle's", f"{own.good / oracle.good:.3f}", own.good >= GOOD_OF_ORACLE * oracle.good)
    yield Figure(
        "good less best rival's", f"{own.good - best_good:+.3f}", own.good >= best_good - GOOD_BELOW_RIVAL
    )
    ratio = _delay_s(own) / best_delay_s if best_delay_s > 0.0 else math.nan
    yield Figure("p99 / best rival's", f"{ratio:.2f}", best_delay_s <= LATE_S or ratio <= P99_OF_RIVAL)
    allowed = max(REFUSED_BY_CHANCE, REFUSED_OF_ORACLE * oracle.refused_share)
    shares = f"{own.refused_share:.1%} of {oracle.refused_share:.1%}"
    yield Figure("refused, oracle's", shares, own.refused_share <= allowed)
    if (quality := own.estimate) and quality.pairwise_accuracy and quality.median_error:
        right, error = quality.pairwise_accuracy, quality.median_error
        yield Figure("pairs", f"{right:.1%}", right >= PAIRS)
        yield Figure("error", f"{error:.0%}", error < ERROR)


def _delay_s(run: PolicyRun) -> float:
    delay_s = run.delay_s(99)
    return math.inf if delay_s is None else delay_s


def shown(run: PolicyRun) -> str:
    refused = f"; {run.refused_share:.1%}" if run.refused_share else ""
    return f"{run.good:.1%} ({_delay_s(run):.3g} s{refused})"


def report(cells: Iterable[Cell], results: Iterable[dict[str, PolicyRun]]) -> Counter[tuple[str, bool]]:
    """Print a row for each cell; return how many keep each claim, and how many do not."""
    kept: Counter[tuple[str, bool]] = Counter()
    for index, (cell, found) in enumerate(zip(cells, results, strict=True)):
        judged = list(figures(found))
        if not index:
            head = ("cell", "layered", ORACLE, *RIVALS, *(each.claim for each in judged))
            print(row(*head), f"|{'---|' * len(head)}", sep="\n")
        verdicts = (each.text if each.is_kept else f"**{each.text}**" for each in judged)
        print(row(cell.name, *map(shown, found.values()), *verdicts), flush=True)
        kept.update((each.claim, each.is_kept) for each in judged)
    return kept


def _listed(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("traces", nargs="+", help="files as of `extproc evaluate --workload trace:FILE`")
    parser.add_argument("--fleets", type=_listed, default=FLEETS)
    parser.add_argument("--loads", type=_listed, default=LOADS)
    parser.add_argument("--routers", type=_listed, default=ROUTERS)
    parser.add_argument("--seconds", type=float, default=300.0, help="of each trace")
    parser.add_argument("--judged", type=int, default=500, help="decisions whose estimate is judged")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    places = product(asked.routers, asked.traces, asked.fleets, asked.loads)
    cells = [Cell(trace, fleet, float(load), int(routers)) for routers, trace, fleet, load in places]
    play = partial(measured, seconds=asked.seconds, judged=asked.judged)
    with ProcessPoolExecutor(asked.processes) as pool:
        results = pool.map(play, cells)
        kept = report(cells, results)
    claims = dict.fromkeys(claim for claim, _ in kept)
    print("\nkept:", ", ".join(f"{claim} {kept[claim, True]} of {len(cells)}" for claim in claims))
    if any(not is_kept for _, is_kept in kept):
        raise SystemExit(2)


if __name__ == "__main__":
    main()
