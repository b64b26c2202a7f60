"""`python -m benchmarks.same_digits COMMIT`: whether `extproc evaluate` gives the same numbers as there.

A change of structure must not change a decision. So the same evaluations are made twice, by this tree and by
a checkout of COMMIT in a temporary directory, with fixed seeds, and every number of their JSON is compared to
the last digit. Fields that COMMIT did not have yet are left aside. About ten minutes on two cores; status 1
where anything differs.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

FLEETS = ("local", "mixed-16", "failing")
WORKLOADS = ("chat", "conversations", "bursts")
LOADS = (0.7, 0.95)
ADMISSIONS = ("reject", "queue")
POLICIES = "layered,least-request,token-load,queue-kv"
ROOT = Path(__file__).parents[1]
_EVALUATE = (sys.executable, "-m", "extproc", "evaluate", "--policies", POLICIES)


def evaluated(tree: Path, fleet: str, workload: str, admission: str, seeds: int) -> dict[str, Any]:
    """The JSON of one evaluation, made by the code in `tree`."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out.json"
        options = ("--fleet", fleet, "--workload", workload, "--admission", admission, "--json", str(out))
        subprocess.run(
            [*_EVALUATE, *options, "--seeds", str(seeds)],
            env={**os.environ, "PYTHONPATH": str(tree)},
            cwd=tree,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Where `after` is not what `before` was, each as a line; what only `after` has is no difference."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from differences(value, after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{path}[{index}]")
    elif before != after:
        yield f"{path.lstrip('.')}: {before} before, {after} now"


def main(
    commit: Annotated[str, typer.Argument(help="The commit to compare with, such as HEAD~1.")],
    seeds: Annotated[int, typer.Option(help="Seeds of each evaluation.", min=1)] = 1,
) -> None:
    """Compare this tree's evaluations with those of an earlier commit, digit by digit."""
    cases = [
        (fleet, f"{workload}@{load}", admission)
        for admission, fleet, workload, load in product(ADMISSIONS, FLEETS, WORKLOADS, LOADS)
    ]
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(os.cpu_count()) as pool:
        there = Path(directory) / "before"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", there, commit], cwd=ROOT, check=True)
        try:
            before = [pool.submit(evaluated, there, *case, seeds) for case in cases]
            after = [pool.submit(evaluated, ROOT, *case, seeds) for case in cases]
            found = []
            for case, old, new in zip(cases, before, after, strict=True):
                lines = list(differences(old.result(), new.result()))
                found += lines
                print(f"{'/'.join(case)}: {'same' if not lines else f'{len(lines)} differences'}", flush=True)
                print(*(f"  {line}" for line in lines[:5]), sep="\n", end="\n" if lines else "")
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", there], cwd=ROOT, check=True)
    raise typer.Exit(1 if found else 0)


if __name__ == "__main__":
    typer.run(main)
