"""Whether a twin fitted to one load predicts others: loads on a running vLLM, then `extproc calibrate`.

    python -m benchmarks.calibration http://127.0.0.1:8201 DIR --max-num-seqs 4

The load to fit to comes in pieces, between the loads to check on, and all of them in each round, because the
speed of a machine that others use too wanders over minutes. Rates are for a server that answers two requests
per second of 400 tokens; `--scale` multiplies them.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import typer


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


def measure(server: str, load: Load, scale: float, store: Path, seed: int) -> None:
    """Put the load on the server, and add its samples to the store."""
    rates = ",".join(f"{rate * scale:g}" for rate in load.rates)
    extproc(
        *("profile", "--backends", server, "--samples", store, "--rates", rates),
        *("--step", load.step_s, "--passes", 1, "--prompt", load.prompt, "--output", load.output),
        *("--seed", seed),
    )


def extproc(*arguments: object) -> int:
    """Run a command of extproc, and show what it says."""
    return subprocess.call([sys.executable, "-m", "extproc", *map(str, arguments)])


@contextmanager
def busy(cores: int) -> Iterator[None]:
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


def main(
    server: Annotated[str, typer.Argument(metavar="URL")],
    out: Annotated[Path, typer.Argument(help="A new directory.", metavar="DIR")],
    max_num_seqs: Annotated[int, typer.Option(help="That of the server.")],
    rounds: Annotated[int, typer.Option(help="How often all of it.")] = 2,
    scale: Annotated[float, typer.Option(help="Multiplies all rates.")] = 1.0,
    busy_cores: Annotated[int, typer.Option(help="Loops of the lowest priority meanwhile.")] = 0,
) -> None:
    """Measure and compare; status 1 where a load is not predicted."""
    out.mkdir(parents=True)
    with busy(busy_cores):
        for turn in range(1, rounds + 1):
            for number, (name, load) in enumerate(CHECKS.items()):
                if name in FIT_BEFORE:
                    measure(server, FIT, scale, out / "fit.db", seed=100 * turn + number)
                measure(server, load, scale, out / f"{name}.db", seed=100 * turn + 50 + number)
    status = extproc(
        *("calibrate", "--samples", out / "fit.db", "--out", out / "profile.json"),
        *(argument for name in CHECKS for argument in ("--check", out / f"{name}.db")),
        *("--server", server, "--max-num-seqs", max_num_seqs),
        *("--page", out / "calibration.html", "--json", out / "calibration.json"),
    )
    raise typer.Exit(status)


if __name__ == "__main__":
    typer.run(main)
