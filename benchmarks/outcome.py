"""`python -m benchmarks.outcome`: CPU time of what follows a request, by step.

An entry of Envoy's access log is read, its outcome and sample are made, the backend learns from it, and the
sample is packed and written. All is the production code, on an entry as Envoy sends it; learning includes all
that `routing/feedback.py` does for a stream that went well. Writing is to the page cache of a temporary
directory.
"""

import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.timing import cpu_us
from extproc.adapters.envoy.access_log_wire import decode_entries
from extproc.adapters.files.sample_rows import RowsFile, packed
from extproc.adapters.protos import access_log_pb2 as pb
from extproc.config.rules import core_rules_of_stages
from extproc.exchange.messages import Phase, RouteTo
from extproc.fleet.endpoint import Endpoint
from extproc.lab.rivals.as_in_production import MODEL, request_of
from extproc.lab.traffic.arrivals import Arrival
from extproc.outcomes.outcome import read_outcome, read_retry
from extproc.routing.core import Core

BACKENDS = 16
ENTRIES = 16
"""As many as Envoy puts into a message of 16 KB."""
ROWS = 500
_CHAT = Arrival(0.0, 312, 64)
_ENDPOINTS = [Endpoint(f"vllm-{n}", "127.0.0.1", 8000 + n, frozenset({MODEL})) for n in range(BACKENDS)]


def _message(core: Core) -> bytes:
    """Return a message of the access log, of chats that the core has placed."""
    message = pb.StreamAccessLogsMessage()
    for _ in range(ENTRIES):
        placement = core.place(request_of(_CHAT, knows_adapters=False), Phase.REQUEST_BODY, 0.0)
        if not isinstance(placement.instruction, RouteTo) or placement.lease is None:
            raise TypeError("a request was refused")
        placement.lease.end(1.0)
        entry = message.http_logs.log_entry.add()
        common = entry.common_properties
        common.start_time.seconds, common.start_time.nanos = 1_796_051_516, 138_223_000
        common.duration.nanos = 27_893_000
        common.upstream_request_attempt_count = 1
        common.metadata.filter_metadata["extproc"].update(placement.instruction.metadata)
        for tag, microseconds in (("ttft_us", 200_236), ("decode_us", 53_860), ("headers_us", 3_605)):
            common.custom_tags[tag] = str(microseconds)
        entry.response.response_code.value = 200
        entry.response.response_body_bytes = 4039
    return message.SerializeToString()


def main() -> None:
    """Time the steps."""
    core = Core(core_rules_of_stages({}), np.random.default_rng(1))
    core.set_members(_ENDPOINTS, 0.0, _ENDPOINTS)
    message = _message(core)
    entries = list(decode_entries(message))
    outcome = read_outcome(entries[0])
    if outcome is None or not outcome.sample.is_clean:
        raise RuntimeError("the entries are not read")
    milliseconds = count(1)

    def make_outcomes() -> None:
        for entry in entries:
            if read_retry(entry) is None:
                read_outcome(entry)

    def learn() -> None:
        for entry in entries:
            core.learn(entry, next(milliseconds) / 1e3)

    samples = [outcome.sample] * ROWS
    with tempfile.TemporaryDirectory() as directory:
        file = RowsFile(Path(directory) / "samples.db", 1 << 26)
        steps = {
            "reading an entry": (lambda: list(decode_entries(message)), ENTRIES),
            "making its outcome and sample": (make_outcomes, ENTRIES),
            "that, and learning from it": (learn, ENTRIES),
            "packing and writing the sample": (lambda: file.append(packed(samples, 1_000_000)[0]), ROWS),
        }
        table = Table("step", "CPU µs")
        for step, (call, times) in steps.items():
            table.add_row(step, f"{cpu_us(call) / times:.2f}")
        file.close()
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
