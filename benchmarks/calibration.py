"""Whether a twin fitted to one load foretells others: loads on a running vLLM, then `extproc calibrate`.

    python -m benchmarks.calibration --server http://127.0.0.1:8201 --max-num-seqs 4 --out DIR

The load to fit to comes in pieces, between the loads to check on, because the speed of a machine that others
use too wanders over minutes. Each check is run once in each round, with the same arrivals, so the rounds tell
how far the server agrees with itself; what is in between has to push a check's prompts out of the prefix
cache. Rates are for a server that answers two requests per second of 400 tokens; `--scale` multiplies them.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Load(NamedTuple):
    """One run of `extproc profile`."""

    prompt: str
    output: str
    rates: tuple[float, ...]
    step_s: float


FIT = Load("lognormal:200:1.1", "lognormal:32:0.8", (0.5, 1, 2, 3), 12)
CHECKS = {
    "long-idle": Load("lognormal:800:0.4", "fixed:24", (0.5,), 50),
    "short-overload": Load("fixed:24", "lognormal:120:0.4", (5,), 24),
    "mix-busy": Load("mix:48:1500:0.15", "lognormal:40:0.5", (1.8,), 45),
    "long-overload": Load("lognormal:800:0.4", "fixed:24", (2,), 30),
    "short-idle": Load("fixed:24", "lognormal:120:0.4", (1,), 45),
}
FIT_BEFORE = {"long-idle", "mix-busy", "long-overload", "short-idle"}


def measure(args: argparse.Namespace, load: Load, store: str, seed: int) -> None:
    """Put the load on the server, and add its samples to the store."""
    rates = ",".join(f"{rate * args.scale:g}" for rate in load.rates)
    extproc(
        *("profile", "--backends", args.server, "--samples", args.out / store, "--rates", rates),
        *("--step", load.step_s, "--passes", 1, "--prompt", load.prompt, "--output", load.output),
        *("--seed", seed),
    )


def extproc(*arguments: object) -> int:
    """Run a command of extproc, and show what it says."""
    return subprocess.call([sys.executable, "-m", "extproc", *map(str, arguments)])


@contextmanager
def busy_cores(cores: int) -> Iterator[None]:
    """Loops of the lowest priority, which take what nobody else wants: the machine is never half idle.

    Cores that share caches and clocks are faster while their neighbours sleep; on a machine with other users
    that would come and go.
    """
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        for loop in loops:
            os.sched_setscheduler(loop.pid, os.SCHED_IDLE, os.sched_param(0))
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--server", required=True, metavar="URL")
    parser.add_argument("--max-num-seqs", required=True, type=int)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies all rates")
    parser.add_argument("--busy-cores", type=int, default=0, help="loops of the lowest priority meanwhile")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    with busy_cores(args.busy_cores):
        for turn in range(1, args.rounds + 1):
            for number, (name, load) in enumerate(CHECKS.items()):
                if name in FIT_BEFORE:
                    measure(args, FIT, "fit.db", seed=100 * turn + number)
                measure(args, load, f"{name}-{turn}.db", seed=10 + number)
    checks = [args.out / f"{name}-{turn}.db" for name in CHECKS for turn in range(1, args.rounds + 1)]
    return extproc(
        *("calibrate", "--samples", args.out / "fit.db", "--out", args.out / "profile.json"),
        *(argument for check in checks for argument in ("--check", check)),
        *("--server", args.server, "--max-num-seqs", args.max_num_seqs),
        *("--page", args.out / "calibration.html", "--json", args.out / "calibration.json"),
    )


if __name__ == "__main__":
    sys.exit(main())
