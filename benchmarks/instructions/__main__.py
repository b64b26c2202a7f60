"""`python -m benchmarks.instructions`: the machine instructions that a request takes, whole and by part.

They hardly depend on what else the machine does, while times do. It needs valgrind, whose callgrind counts.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.instructions import replay

PARTS = {
    "HTTP/2 and gRPC (the empty server, whole)": ("empty", "empty, access log"),
    "decode headers": ("decode headers",),
    "decode body": ("decode body",),
    "read the request": ("read request",),
    "candidates, decision, booking, its end": ("place and end",),
    "encode the answer": ("encode",),
    "decode the access log": ("decode log",),
    "outcome, and all that is learned": ("learn",),
    "store the sample": ("store samples",),
}
WHOLE = {
    "plain answer, whole": ("plain", "plain, access log"),
    "streamed answer, whole": ("stream", "stream, access log"),
    "streamed answer, the model asked, whole": ("model", "model, access log"),
}
_COUNTING = (
    "valgrind",
    "--tool=callgrind",
    "--dump-before=getppid",
    "--quiet",
)


def main(
    *,
    json_path: Annotated[Path | None, typer.Option("--json", help="write the counts here")] = None,
    work: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Count the instructions of a request behind Envoy: 16 backends, a chat of 1 KB, no sockets."""
    if work is not None:
        uvloop.run(replay.run(work))
        (work / "counts.json").write_text(json.dumps(replay.counts))
        return
    with tempfile.TemporaryDirectory(prefix="extproc-instructions-") as name:
        counts = _count(Path(name))
    table = Table("part", "instructions a request", "share of the streamed whole")
    whole = sum(counts[each] for each in WHOLE["streamed answer, whole"])
    for part, names in (PARTS | WHOLE).items():
        found = sum(counts[each] for each in names)
        table.add_row(part, f"{found:,.0f}", f"{found / whole:.1%}")
    Console().print(table)
    if json_path:
        json_path.write_text(json.dumps(counts, indent=1))


def _count(directory: Path) -> dict[str, float]:
    """Return the instructions a request of each count."""
    out = directory / "callgrind"
    itself = (sys.executable, "-m", "benchmarks.instructions", "--work", str(directory))
    subprocess.run([*_COUNTING, f"--callgrind-out-file={out}", *itself], check=True)
    names = json.loads((directory / "counts.json").read_text())
    # The first dump is of all before the first count, and the others alternate.
    return {
        name: _total(out.with_name(f"callgrind.{2 * number + 2}")) / replay.REQUESTS
        for number, name in enumerate(names)
    }


def _total(dump: Path) -> int:
    (line,) = (line for line in dump.read_text().splitlines() if line.startswith("totals: "))
    return int(line.split()[1])


if __name__ == "__main__":
    typer.run(main)
