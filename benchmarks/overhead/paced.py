"""The open loop: requests that come when they come, whatever is answered.

The generator is `paced_load.c`, compiled when it is first needed: in Python it took three times the CPU, on
the cores of what it measures. Its clock starts when its connections are made.
"""

import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.overhead.load import LoadResult, chat_request
from benchmarks.overhead.processes import BenchmarkError

CONNECTIONS = 256
_SOURCE = Path(__file__).with_name("paced_load.c")


@dataclass(slots=True)
class PacedLoad:
    """The compiled generator, and the seed of its next turn: no two turns are alike, every run is."""

    directory: Path
    seed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        command = ["cc", "-O2", "-o", str(self._program), str(_SOURCE), "-lm"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise BenchmarkError(f"a C compiler is needed: {getattr(error, 'stderr', error)}") from error

    def run(self, port: int, requests_per_s: float, duration_s: float, chunks: int = 0) -> LoadResult:
        """Load 127.0.0.1:`port` at a rate; with `chunks` each answer is a stream of so many.

        Latencies count from when a request was due. Raises BenchmarkError where a connection is lost.
        """
        self.seed += 1
        events = chunks + 1 if chunks else 0
        with tempfile.TemporaryDirectory(dir=self.directory) as name:
            request, latencies = Path(name) / "request", Path(name) / "latencies"
            request.write_bytes(chat_request(chunks))
            numbers = (port, requests_per_s, duration_s, CONNECTIONS, self.seed, events)
            command = [str(self._program), *map(str, numbers), str(request), str(latencies)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BenchmarkError(f"the load ended: {done.stderr}")
            _, wrong, cpu_s = done.stdout.split()
            found = np.sort(np.fromfile(latencies)).tolist()
        return LoadResult(found, int(wrong), duration_s, float(cpu_s))

    @property
    def _program(self) -> Path:
        return self.directory / "paced_load"
