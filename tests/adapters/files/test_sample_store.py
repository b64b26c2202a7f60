import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from msgspec.structs import asdict

from extproc.adapters.files.sample_store import SampleStore
from extproc.adapters.files.sample_table import read_samples
from extproc.errors import SampleStoreError
from extproc.outcomes.facts import Sample

SampleWith = Callable[..., Sample]
WAIT_S = 20.0

APPEND_IN_A_PROCESS = """
import sys
from pathlib import Path
from extproc.adapters.files.sample_store import SampleStore
from extproc.outcomes.facts import Sample
from extproc.fleet.wait_terms import ExpectedWait

store = SampleStore.open(Path(sys.argv[1]), 100_000)
values = eval(sys.argv[2])
for index in range(2000):
    store.append(Sample(**values | {"load": float(index)}))
store.close()
print(store.written, store.dropped)
"""

FILL_A_DISK = """
import resource, signal, sys
from pathlib import Path
from extproc.adapters.files.sample_store import SampleStore
from extproc.outcomes.facts import Sample
from extproc.fleet.wait_terms import ExpectedWait

store = SampleStore.open(Path(sys.argv[1]), 100_000)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
values = eval(sys.argv[2])
for index in range(5000):
    store.append(Sample(**values))
store.close()
print(store.written, store.dropped, store.failures > 0)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples.db"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.rollback()


class Events(logging.Handler):
    """Sets an event when a line with a given name is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.not_written = threading.Event()
        self.written_again = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if record.getMessage().startswith("samples_not_written"):
            self.not_written.set()
        if record.getMessage().startswith("samples_written_again"):
            self.written_again.set()


@pytest.fixture
def events() -> Iterator[Events]:
    handler, logger = Events(), logging.getLogger("extproc.adapters.files.sample_store")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def values_of(sample: Sample) -> str:
    return repr(asdict(sample))


def test_samples_that_were_appended_can_be_read_after_closing(path: Path, sample_with: SampleWith) -> None:
    store = SampleStore.open(path, max_rows=10_000)
    for index in range(1200):
        store.append(sample_with(load=float(index)))
    store.close()
    assert read_samples(path)["load"].tolist() == list(range(1200))
    assert (store.written, store.dropped, store.failures) == (1200, 0, 0)


def test_a_store_is_continued_by_the_next_process(path: Path, sample_with: SampleWith) -> None:
    for load in (1.0, 2.0):
        store = SampleStore.open(path, max_rows=1000)
        store.append(sample_with(load=load))
        store.close()
    assert read_samples(path)["load"].tolist() == [1.0, 2.0]


def test_only_the_newest_rows_are_kept(path: Path, sample_with: SampleWith) -> None:
    store = SampleStore.open(path, max_rows=100)
    for index in range(2350):
        store.append(sample_with(load=float(index)))
    store.close()
    assert read_samples(path)["load"].tolist() == list(range(2250, 2350))


def test_a_smaller_limit_trims_an_older_store(path: Path, sample_with: SampleWith) -> None:
    for max_rows, count in ((10_000, 900), (200, 1)):
        store = SampleStore.open(path, max_rows)
        for _ in range(count):
            store.append(sample_with())
        store.close()
    assert len(read_samples(path)["load"]) == 200


def test_a_batch_is_committed_without_closing(path: Path, sample_with: SampleWith, events: Events) -> None:
    store = SampleStore.open(path, max_rows=1000)
    path.rename(path.with_name("aside"))
    path.mkdir()
    store.append(sample_with(load=5.0))
    assert events.not_written.wait(WAIT_S)
    path.rmdir()
    assert events.written_again.wait(WAIT_S)
    assert read_samples(path)["load"].tolist() == [5.0]
    store.close()
    assert (store.written, store.dropped) == (1, 0)
    assert store.failures >= 1
    assert len(events.lines) == 2, "a lasting fault is one line, and so is its end"


def test_samples_that_cannot_be_written_at_closing_are_counted_as_dropped(
    path: Path, sample_with: SampleWith, events: Events
) -> None:
    store = SampleStore.open(path, max_rows=1000)
    path.unlink()
    path.mkdir()
    for _ in range(3):
        store.append(sample_with())
    store.close()
    assert (store.written, store.dropped) == (0, 3)
    assert "unable to open" in events.lines[-1]


def test_a_store_that_was_deleted_is_begun_anew(path: Path, sample_with: SampleWith) -> None:
    store = SampleStore.open(path, max_rows=1000)
    path.unlink()
    store.append(sample_with(load=8.0))
    store.close()
    assert read_samples(path)["load"].tolist() == [8.0]


def test_appending_never_waits_for_a_locked_file_and_counts_what_does_not_fit(
    path: Path, sample_with: SampleWith
) -> None:
    store = SampleStore.open(path, max_rows=100_000)
    with locked(path):
        for index in range(12_000):
            store.append(sample_with(load=float(index)))
        assert 1000 <= store.dropped <= 2000
        assert store.written == 0
    store.close()
    assert store.written + store.dropped == 12_000
    assert len(read_samples(path, ("load",))["load"]) == store.written


@pytest.mark.parametrize(
    "changes",
    [{"token_limit": 10**30}, {"model": "\ud800"}, {"priority": -(10**25)}, {"model": {"not": "text"}}],
)
def test_a_value_that_cannot_be_stored_costs_only_its_own_sample(
    path: Path, sample_with: SampleWith, changes: dict[str, object]
) -> None:
    store = SampleStore.open(path, max_rows=1000)
    for sample in (sample_with(load=1.0), sample_with(**changes), sample_with(load=2.0)):
        store.append(sample)
    store.close()
    assert read_samples(path)["load"].tolist() == [1.0, 2.0]
    assert (store.written, store.dropped, store.failures) == (2, 1, 0)


def test_several_processes_may_open_and_append_at_once(path: Path, sample_with: SampleWith) -> None:
    command = [sys.executable, "-c", APPEND_IN_A_PROCESS, str(path), values_of(sample_with())]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["2000 0\n"] * 3
    load = read_samples(path, ("load",))["load"]
    assert sorted(load.tolist()) == sorted([float(index) for index in range(2000)] * 3)


def test_a_full_disk_is_counted_and_leaves_a_readable_store(path: Path, sample_with: SampleWith) -> None:
    command = [sys.executable, "-c", FILL_A_DISK, str(path), values_of(sample_with())]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    written, dropped, has_failed = output.split()
    assert has_failed == "True"
    assert int(written) + int(dropped) == 5000
    assert len(read_samples(path, ("load",))["load"]) == int(written) < 5000


def test_a_file_that_is_no_store_is_refused_at_once(path: Path) -> None:
    path.write_text("not a database, but long enough to look like one\n" * 100)
    with pytest.raises(SampleStoreError, match=r"samples\.db"):
        SampleStore.open(path, max_rows=1000)
