import fcntl
import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import asdict
from support.clean_sample import SAMPLE

from extproc.adapters.files.sample_reading import read_samples, take_in
from extproc.adapters.files.sample_rows import files_aside
from extproc.adapters.files.sample_store import _ROW_BYTES, SampleStore
from extproc.errors import SampleStoreError
from extproc.outcomes.facts import Sample

SampleWith = Callable[..., Sample]

BEGIN = """
import sys, time
from pathlib import Path
from extproc.adapters.files.sample_store import SampleStore
from extproc.outcomes.facts import Sample
from extproc.fleet.wait_terms import ExpectedWait

due = []
path = Path(sys.argv[1])
store = SampleStore.open(path, 100_000, lambda delay_s, call: due.append((time.monotonic() + delay_s, call)))
values = eval(sys.argv[2])

def run_due():
    while due and due[0][0] <= time.monotonic():
        due.pop(0)[1]()
"""

APPEND_IN_A_PROCESS = (
    BEGIN
    + """
for index in range(2000):
    store.append(Sample(**values | {"load": float(index)}))
    run_due()
store.close()
print(store.written, store.dropped)
"""
)

APPEND_UNTIL_KILLED = (
    BEGIN
    + """
index = 0
while True:
    store.append(Sample(**values | {"load": float(index)}))
    print(index, flush=True)
    index += 1
    run_due()
    time.sleep(0.0005)
"""
)

TAKE_IN_UNTIL_KILLED = """
import sys
from pathlib import Path
from extproc.adapters.files.sample_reading import take_in

print("begun", flush=True)
while True:
    take_in(Path(sys.argv[1]))
"""

FILL_A_DISK = (
    "import resource\n"
    + BEGIN
    + """
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
for index in range(1500):
    store.append(Sample(**values))
due.pop()[1]()
due.pop()[1]()
store.close()
print(store.written, store.dropped, store.failures)
"""
)


class Clock:
    """Stands for the event loop's `call_later`."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def __call__(self, _delay_s: float, call: Callable[[], None]) -> None:
        self.due.append(call)

    def run(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples.db"


def in_a_process(program: str, path: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", program, str(path), repr(asdict(SAMPLE))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def loads(path: Path) -> list[float]:
    found: list[float] = read_samples(path, ("load",))["load"].tolist()
    return found


def test_samples_that_were_appended_can_be_read_after_closing(
    path: Path, clock: Clock, sample_with: SampleWith
) -> None:
    store = SampleStore.open(path, 10_000, clock)
    for index in range(1200):
        store.append(sample_with(load=float(index)))
    store.close()
    assert loads(path) == list(range(1200))
    assert (store.written, store.dropped, store.failures) == (1200, 0, 0)


def test_samples_are_read_while_the_store_is_open_and_only_once(
    path: Path, clock: Clock, sample_with: SampleWith
) -> None:
    store = SampleStore.open(path, 10_000, clock)
    for load in (1.0, 2.0, 3.0):
        store.append(sample_with(load=load))
        clock.run()
        assert loads(path)[-1] == load
    assert loads(path) == [1.0, 2.0, 3.0]
    assert files_aside(path) == []
    store.close()


def test_a_store_is_continued_by_the_next_process(path: Path, clock: Clock, sample_with: SampleWith) -> None:
    for load in (1.0, 2.0):
        store = SampleStore.open(path, 1000, clock)
        store.append(sample_with(load=load))
        store.close()
    assert loads(path) == [1.0, 2.0]


def test_only_the_newest_rows_are_kept(path: Path, clock: Clock, sample_with: SampleWith) -> None:
    store = SampleStore.open(path, 100, clock)
    for index in range(350):
        store.append(sample_with(load=float(index)))
        if index % 50 == 49:
            clock.run()
            take_in(path)
    store.close()
    assert loads(path) == list(range(250, 350))


def test_without_a_reader_the_oldest_rows_go_and_space_is_bounded(
    path: Path, clock: Clock, sample_with: SampleWith
) -> None:
    max_rows = 1000
    store = SampleStore.open(path, max_rows, clock)
    for index in range(5 * max_rows):
        store.append(sample_with(load=float(index)))
        if index % 25 == 24:
            clock.run()
    store.close()
    taken_bytes = sum(file.stat().st_size for file in path.parent.iterdir() if ".rows" in file.name)
    assert taken_bytes < 1.3 * _ROW_BYTES * max_rows
    kept = loads(path)
    assert kept == list(range(5 * max_rows - len(kept), 5 * max_rows))
    assert len(kept) >= 0.9 * max_rows


def test_a_smaller_limit_trims_an_older_store(path: Path, clock: Clock, sample_with: SampleWith) -> None:
    for max_rows, count in ((10_000, 900), (200, 1)):
        store = SampleStore.open(path, max_rows, clock)
        for _ in range(count):
            store.append(sample_with())
        store.close()
    assert len(loads(path)) == 200


def test_samples_wait_while_nothing_can_be_written(
    path: Path, clock: Clock, sample_with: SampleWith, caplog: pytest.LogCaptureFixture
) -> None:
    store = SampleStore.open(path, 1000, clock)
    rows = path.with_name("samples.db.rows")
    rows.mkdir()
    store.append(sample_with(load=5.0))
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            clock.run()
        assert (store.written, store.failures) == (0, 3)
        rows.rmdir()
        clock.run()
    assert loads(path) == [5.0]
    store.close()
    assert (store.written, store.dropped) == (1, 0)
    events = [line.split()[0] for line in caplog.messages]
    assert events == ["samples_not_written", "samples_written_again"], "a lasting fault is one line"


def test_samples_that_cannot_be_written_at_closing_are_counted_as_dropped(
    path: Path, clock: Clock, sample_with: SampleWith
) -> None:
    store = SampleStore.open(path, 1000, clock)
    path.with_name("samples.db.rows").mkdir()
    for _ in range(3):
        store.append(sample_with())
    store.close()
    assert (store.written, store.dropped) == (0, 3)


def test_a_store_that_was_deleted_is_begun_anew(path: Path, clock: Clock, sample_with: SampleWith) -> None:
    store = SampleStore.open(path, 1000, clock)
    for load in (7.0, 8.0):
        for file in path.parent.iterdir():
            file.unlink()
        store.append(sample_with(load=load))
        clock.run()
    store.close()
    assert loads(path) == [8.0]


def test_appending_never_waits_for_a_locked_file_and_counts_what_does_not_fit(
    path: Path, clock: Clock, sample_with: SampleWith
) -> None:
    store = SampleStore.open(path, 100_000, clock)
    with path.with_name("samples.db.rows").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for index in range(12_000):
            store.append(sample_with(load=float(index)))
            if index % 1000 == 999:
                clock.run()
        assert (store.written, store.dropped, store.failures) == (0, 2000, 0)
    store.close()
    assert loads(path) == list(range(10_000))


@pytest.mark.parametrize("changes", [{"token_limit": 10**30}, {"model": "\ud800"}, {"model": object()}])
def test_a_value_that_cannot_be_stored_costs_only_its_own_sample(
    path: Path, clock: Clock, sample_with: SampleWith, changes: dict[str, object]
) -> None:
    store = SampleStore.open(path, 1000, clock)
    for sample in (sample_with(load=1.0), sample_with(**changes), sample_with(load=2.0)):
        store.append(sample)
    store.close()
    assert loads(path) == [1.0, 2.0]
    assert (store.written, store.dropped, store.failures) == (2, 1, 0)


def test_several_processes_may_append_at_once_while_another_reads(path: Path) -> None:
    processes = [in_a_process(APPEND_IN_A_PROCESS, path) for _ in range(3)]
    while any(process.poll() is None for process in processes):
        if path.exists():
            take_in(path)
    assert [process.communicate(timeout=60)[0] for process in processes] == ["2000 0\n"] * 3
    assert sorted(loads(path)) == sorted([float(index) for index in range(2000)] * 3)


def test_a_sidecar_that_is_killed_loses_the_last_second_at_most(path: Path) -> None:
    """Whatever it did at that moment, and whoever was reading; another one goes on in the same file."""
    for wait_s in (0.6, 1.1):
        for file in path.parent.iterdir():
            file.unlink()
        sidecar = in_a_process(APPEND_UNTIL_KILLED, path)
        assert sidecar.stdout is not None
        assert sidecar.stdout.readline() == "0\n"
        reader = in_a_process(TAKE_IN_UNTIL_KILLED, path)
        assert reader.stdout is not None
        assert reader.stdout.readline() == "begun\n"
        time.sleep(wait_s)  # any moment: it is not waited for anything
        reader.kill()
        sidecar.kill()
        appended = int(sidecar.communicate()[0].split()[-2]) + 1
        reader.communicate()
        kept = loads(path)
        assert kept == list(range(len(kept))), "none is missing between others, or there twice"
        assert len(kept) >= appended - 2000, "an append takes half a millisecond or more"
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_block_that_was_cut_short_costs_itself_alone(
    path: Path, clock: Clock, sample_with: SampleWith
) -> None:
    store = SampleStore.open(path, 10_000, clock)
    rows, ends = path.with_name("samples.db.rows"), [0]
    for load in range(3):
        store.append(sample_with(load=float(load)))
        clock.run()
        ends.append(rows.stat().st_size)
    store.close()
    whole = rows.read_bytes()
    for cut in range(ends[1] + 1, ends[2], 31):
        rows.write_bytes(whole[:cut] + whole[ends[2] :])
        assert loads(path) == [0.0, 2.0]
        path.unlink()


def test_a_full_disk_is_counted_and_leaves_a_readable_store(path: Path) -> None:
    written, dropped, failures = in_a_process(FILL_A_DISK, path).communicate(timeout=60)[0].split()
    assert int(failures) > 0
    assert int(written) + int(dropped) == 1500
    assert len(loads(path)) == int(written) == 500


def test_a_file_that_is_no_store_is_refused_at_once(path: Path, clock: Clock) -> None:
    path.write_text("not a database, but long enough to look like one\n" * 100)
    with pytest.raises(SampleStoreError, match=r"samples\.db"):
        SampleStore.open(path, 1000, clock)
