"""All targets, one after the other, with limits on time and memory; then what came of it.

    make fuzz                                                 a million executions in all
    PYTHONPATH=tests python -m fuzz.campaign --share 0.01     a hundredth of it
    PYTHONPATH=tests python -m fuzz.campaign --keep           and keep in the corpus what has found a new way

Each target runs in a process of its own, which ends at the first failure: a crash or an exception that
should not be, an input that takes a second of CPU, or more than `MEMORY_MIB` in all. The fuzzer itself
remembers what it has seen, so growth is looked for without it (`fuzz.growth`).
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fuzz.targets import CORPUS, TARGETS

RUNS = {
    "body": 120_000,
    "form": 60_000,
    "content": 60_000,
    "request": 60_000,
    "ext_proc": 150_000,
    "exchange": 10_000,
    "gateway": 60_000,
    "access_log": 150_000,
    "facts": 40_000,
    "exposition": 200_000,
    "scrape": 60_000,
    "models": 60_000,
    "watch": 60_000,
    "slices": 60_000,
    "pool": 60_000,
    "pool_rules": 60_000,
    "dns_answer": 60_000,
    "model_file": 40_000,
    "trees": 180_000,
    "config": 20_000,
    "cluster_file": 30_000,
    "endpoints_file": 20_000,
    "reports": 60_000,
    "sample_rows": 60_000,
}
"""In the order of `TARGETS`; fewer where one takes long. 1,680,000 in all."""
MAX_INPUT_BYTES = 4096
MEMORY_MIB = 1024
HANG_S = 60
"""Of the clock, for what waits without using the CPU; a second of CPU ends a run before that."""
WORDS = Path(__file__).with_name("words.dict")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one target; `grown_mib` is None where the fuzzer has failed."""

    target: str
    runs: int
    duration_s: float
    slowest_cpu_ms: int
    peak_mib: int
    grown_mib: float | None
    failure: str


def run(target: str, runs: int, work: Path, *, keeps: bool) -> Result:
    """Fuzz one target, beginning with a copy of its corpus."""
    found = work / target
    shutil.copytree(CORPUS / target, found)
    arguments = [
        f"-runs={runs}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-timeout={HANG_S}",
        f"-dict={WORDS}",
        f"-artifact_prefix={target}-",
        "-print_final_stats=1",
    ]
    started_s = time.monotonic()
    text, code = _output("fuzz.parsers", target, str(found), *arguments)
    duration_s = time.monotonic() - started_s
    failure = "" if code == 0 else text[-3000:]
    grown_mib = float(_output("fuzz.growth", target, str(found))[0].split()[-1]) if code == 0 else None
    if keeps and code == 0:
        _output("fuzz.parsers", target, "-merge=1", str(CORPUS / target), str(found))
    return Result(
        target,
        _last(r"number_of_executed_units: (\d+)", text),
        duration_s,
        _last(r"slowest_cpu_ms: (\d+)", text),
        _last(r"peak_rss_mb: +(\d+)", text),
        grown_mib,
        failure,
    )


def _output(module: str, *arguments: str) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.stdout.decode("utf-8", "replace"), done.returncode


def _last(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--share", type=float, default=1.0, help="of the executions")
    parser.add_argument("--keep", action="store_true", help="add to the corpus what has found a new way")
    parser.add_argument("targets", nargs="*", default=list(TARGETS), help="all by default")
    options = parser.parse_args()
    print(f"{'target':<12}{'runs':>10}{'seconds':>9}{'slowest ms':>12}{'peak MiB':>10}{'grown MiB':>11}")
    results = []
    with tempfile.TemporaryDirectory() as directory:
        for target in options.targets:
            result = run(target, round(RUNS[target] * options.share), Path(directory), keeps=options.keep)
            results.append(result)
            grown = "FAILED" if result.grown_mib is None else f"{result.grown_mib:.1f}"
            slowest = result.slowest_cpu_ms or "< 10"
            print(
                f"{target:<12}{result.runs:>10,}{result.duration_s:>9.0f}{slowest:>12}"
                f"{result.peak_mib:>10}{grown:>11}",
                flush=True,
            )
    print(f"{'in all':<12}{sum(result.runs for result in results):>10,}")
    failures = [result for result in results if result.failure]
    for result in failures:
        print(f"\n{result.target}:\n{result.failure}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
