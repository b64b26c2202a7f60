"""The table of tests/faults/README.md: what was asserted, and what was measured, by the run that wrote it."""

import re
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[1] / "faults" / "README.md"
SOAK_BEGIN, SOAK_END = "<!-- by make test-long -->", "<!-- end of soak -->"
SIEGE_BEGIN, SIEGE_END = "<!-- by the siege of make test-long -->", "<!-- end of siege -->"
BEGIN, END = "<!-- rows by make test-faults -->", "<!-- end of rows -->"
HEAD = "| fault | what happens | requests failed | time to recover |\n|---|---|---|---|\n"

FAULTS = {
    "sidecar killed (SIGKILL)": (
        "requests under way go on; new ones go through Envoy's pool; it takes over when it is back"
    ),
    "sidecar ended (SIGTERM)": "streams are handed back to Envoy, which goes on with them and with the pool",
    "sidecar frozen for 5 s (SIGSTOP)": (
        "each request waits for Envoy's message timeout of 1 s, then goes through the pool"
    ),
    "sidecar restarted with requests in flight": (
        "they go on to their end; its books begin empty and lose nothing"
    ),
    "backend killed before its first byte": (
        "its requests are answered by another one; it is taken out, and used again when it is back"
    ),
    "backend killed after its first byte": (
        "the responses under way there are cut off, and never tried again; all others are unharmed"
    ),
    "backend frozen for 10 s (SIGSTOP)": (
        "streams whose headers do not come are answered by another one; it is taken out until its metrics"
        " answer"
    ),
    "backend refuses connections": "another one answers; it is taken out",
    "backend resets before its first byte": (
        "another one answers, after exactly one more attempt; it is taken out"
    ),
    "backend resets after its first byte": "the client sees the break; no second attempt; it is taken out",
    "backend accepts and never answers": (
        "streams are answered by another one after `per_try_timeout`; it is taken out"
    ),
    "both backends reset": "each request has two attempts at most, and few have a second one: the budget",
    "backend answers byte by byte": (
        "its answers are slow, but whole; it gets fewer requests, for those it has count"
    ),
    "`/metrics`: garbage": (
        "refused; after 2 s its signals are stale, and it is chosen by our own count alone"
    ),
    "`/metrics`: an HTML page": "the same",
    "`/metrics`: status 500": "the same",
    "`/metrics`: truncated": "the same",
    "`/metrics`: NaN": "the same",
    "`/metrics`: negative numbers": "the same",
    "`/metrics`: huge numbers": "the same",
    "`/metrics`: 100 MB": "the same; no more than 1 MiB is read",
    "`/metrics`: nothing": "the same",
    "`/metrics`: hanging": "the same; with nothing else answering there it may be taken out, and is probed",
    "backend says running = 0 for ever": "our own count holds: it gets no more than its share",
    "all backends down and back": "503 with Retry-After, at once; service resumes by itself",
    "configuration replaced by nonsense": "refused with its faults; the fleet stays",
    "configuration truncated": "the same, if it is none any more: cut between lines it may be one still",
    "configuration deleted": "the same",
    "configuration unreadable": "the same",
    "model file replaced by nonsense": "refused; what is in use stays",
    "model file truncated": "the same",
    "model file deleted": "what is in use stays",
    "model file unreadable": "the same",
    "disk full": "samples are kept in memory, and written when there is room again",
    "clock jumps by a day and back": "nothing: decisions are made by the monotonic clock",
    "1,000 concurrent long streams": "all complete; all are counted, and none afterwards",
    "5,000 aborted connects": "nothing is left of them: no slot, no descriptor, no stream",
}
"""What is expected, in the order of the table. Which fault is tried where: its name is in the test."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line: how many requests failed of how many; seconds until all was as before, None for no pause."""

    fault: str
    failed: int
    asked: int
    recovery_s: float | None

    def line(self) -> str:
        recovery = "at once" if self.recovery_s is None else f"{self.recovery_s:.1f} s"
        return f"| {self.fault} | {FAULTS[self.fault]} | {self.failed} of {self.asked} | {recovery} |"


class FaultTable:
    """The rows of one run."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def add(self, fault: str, failed: int, asked: int, recovery_s: float | None) -> None:
        """A fault has been tried, and was as expected."""
        assert fault in FAULTS, fault
        self.rows[fault] = Row(fault, failed, asked, recovery_s)

    def write(self, path: Path = README) -> None:
        """Replace the rows of what was tried; those of other runs stay."""
        text = path.read_text(encoding="utf-8")
        lines = recorded(text) | {fault: row.line() for fault, row in self.rows.items()}
        rows = "".join(f"{lines[fault]}\n" for fault in FAULTS if fault in lines)
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        path.write_text(f"{before}{BEGIN}\n{HEAD}{rows}{END}{after}", encoding="utf-8")


def write_soak(said: str, path: Path = README) -> None:
    """What the last soak saw."""
    _write(said, SOAK_BEGIN, SOAK_END, path)


def write_siege(said: str, path: Path = README) -> None:
    """What the last siege saw."""
    _write(said, SIEGE_BEGIN, SIEGE_END, path)


def _write(said: str, begin: str, end: str, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    before, after = text.split(begin)[0], text.split(end)[1]
    path.write_text(f"{before}{begin}\n{said}.\n{end}{after}", encoding="utf-8")


def recorded(text: str) -> dict[str, str]:
    """The lines of the table by their fault."""
    rows = text.split(BEGIN)[1].split(END, maxsplit=1)[0].strip().splitlines()[2:]
    return {re.split(r" \| ", row.removeprefix("| "))[0]: row for row in rows}
