import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from extproc.adapters.trainer.cursor import SampleCursor
from extproc.errors import SampleStoreError
from extproc.outcomes.facts import Sample

SampleWith = Callable[..., Sample]
Write = Callable[..., None]
Execute = Callable[[str], None]


@pytest.fixture
def cursor(store: Path) -> SampleCursor:
    return SampleCursor(store, ("load", "backend"))


def loads(cursor: SampleCursor) -> list[float]:
    read: list[float] = cursor.read()["load"].tolist()
    return read


def test_every_sample_comes_once(cursor: SampleCursor, write: Write, sample_with: SampleWith) -> None:
    write(sample_with(load=1.0), sample_with(load=2.0))
    assert loads(cursor) == [1.0, 2.0]
    assert loads(cursor) == []
    write(sample_with(load=3.0))
    assert loads(cursor) == [3.0]


def test_a_long_store_comes_in_chunks(store: Path, write: Write, sample_with: SampleWith) -> None:
    cursor = SampleCursor(store, ("load",), chunk_rows=2)
    write(*(sample_with(load=float(n)) for n in range(5)))
    seen = [(loads(cursor), cursor.is_behind) for _ in range(3)]
    assert seen == [([0.0, 1.0], True), ([2.0, 3.0], True), ([4.0], False)]


def test_a_store_that_comes_later_is_read_from_its_start(
    cursor: SampleCursor, write: Write, sample_with: SampleWith, store: Path
) -> None:
    with pytest.raises(SampleStoreError, match="no such file"):
        cursor.read()
    assert not store.exists()
    write(sample_with(load=1.0))
    assert loads(cursor) == [1.0]


def test_samples_that_are_not_committed_yet_come_later(
    cursor: SampleCursor, write: Write, sample_with: SampleWith, store: Path
) -> None:
    write(sample_with(load=1.0))
    with closing(sqlite3.connect(store)) as writer:
        writer.execute("INSERT INTO samples SELECT * FROM samples")
        assert loads(cursor) == [1.0]
        writer.commit()
    assert loads(cursor) == [1.0]


@pytest.mark.parametrize("new_rows", [1, 3, 8])
def test_a_store_that_was_begun_anew_is_read_from_its_start(
    cursor: SampleCursor, write: Write, sample_with: SampleWith, store: Path, new_rows: int
) -> None:
    write(*(sample_with(at_s=1.0 + n) for n in range(3)))
    cursor.read()
    for path in store.parent.glob("samples.db*"):
        path.unlink()
    write(*(sample_with(load=float(n), at_s=100.0 + n) for n in range(new_rows)))
    assert loads(cursor) == [float(n) for n in range(new_rows)]
    assert loads(cursor) == []


def test_a_store_that_was_emptied_goes_on(
    cursor: SampleCursor, write: Write, execute: Execute, sample_with: SampleWith
) -> None:
    write(sample_with(load=1.0), sample_with(load=2.0))
    cursor.read()
    execute("DELETE FROM samples")
    assert loads(cursor) == []
    write(sample_with(load=3.0))
    assert loads(cursor) == [3.0]


def test_trimming_the_old_end_loses_and_repeats_nothing(
    cursor: SampleCursor, write: Write, execute: Execute, sample_with: SampleWith
) -> None:
    write(*(sample_with(load=float(n)) for n in range(5)))
    cursor.read()
    write(sample_with(load=5.0), sample_with(load=6.0))
    execute("DELETE FROM samples WHERE rowid <= 5")
    assert loads(cursor) == [5.0, 6.0]


@pytest.mark.parametrize("garbage", [b"text\n" * 2000, b"SQLite format 3\x00" + b"\xff" * 9000, b""])
def test_a_damaged_store_is_an_error_and_the_position_is_kept(
    cursor: SampleCursor, write: Write, sample_with: SampleWith, store: Path, garbage: bytes
) -> None:
    write(sample_with(load=1.0))
    cursor.read()
    write(sample_with(load=2.0))
    aside = store.rename(store.with_suffix(".aside"))
    store.write_bytes(garbage)
    for _ in range(2):
        with pytest.raises(SampleStoreError):
            cursor.read()
    assert store.read_bytes() == garbage
    aside.rename(store)
    assert loads(cursor) == [2.0]


def test_a_fifo_does_not_block_the_reader(cursor: SampleCursor, store: Path) -> None:
    os.mkfifo(store)
    with pytest.raises(SampleStoreError):
        cursor.read()


def test_a_locked_store_is_read_when_it_is_free(
    cursor: SampleCursor, write: Write, execute: Execute, sample_with: SampleWith, store: Path
) -> None:
    write(sample_with(load=1.0))
    execute("PRAGMA journal_mode = DELETE")
    with closing(sqlite3.connect(store)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SampleStoreError, match="locked"):
            cursor.read()
        holder.rollback()
    assert loads(cursor) == [1.0]


def test_random_bytes_in_the_log_are_no_samples(
    cursor: SampleCursor, write: Write, sample_with: SampleWith, store: Path
) -> None:
    write(sample_with(load=1.0))
    with closing(sqlite3.connect(store)) as holder:  # keeps the log from being taken into the store
        holder.execute("SELECT count(*) FROM samples").fetchone()
        write(sample_with(load=2.0))
        log = store.with_name("samples.db-wal")
        assert log.stat().st_size
        log.write_bytes(log.read_bytes() + os.urandom(50_000))
        assert loads(cursor) == [1.0, 2.0]
        write(sample_with(load=3.0))
        assert loads(cursor) == [3.0]


def test_a_name_of_a_million_letters_does_not_fill_the_memory(
    cursor: SampleCursor, write: Write, execute: Execute, sample_with: SampleWith
) -> None:
    write(*(sample_with() for _ in range(3)))
    execute("UPDATE samples SET backend = printf('%.*c', 1000000, 'x') WHERE rowid = 1")
    execute("UPDATE samples SET backend = CAST(zeroblob(1000000) AS TEXT) WHERE rowid = 2")
    assert cursor.read()["backend"].tolist() == [None, None, "vllm-1"]
