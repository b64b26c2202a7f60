"""The sample store: one SQLite file of `Sample` rows, appended by sidecars and read by the trainer.

It takes samples where an outcome is complete and must never hold the event loop up: `append` puts a sample
into a bounded queue, and a thread writes batches. A sample without room is dropped and counted, because a
missing sample costs nothing and a late decision does. SQLite's write-ahead log
(https://sqlite.org/wal.html) lets several sidecars and a reader share the file, which is kept to its newest
rows.
"""

import logging
import sqlite3
import threading
import time
from collections import deque
from pathlib import Path
from typing import Self

from extproc.adapters.condition_log import ConditionLog
from extproc.adapters.files.sample_table import Row, insert_statement, open_table, row_of
from extproc.errors import SampleStoreError
from extproc.outcomes.facts import Sample

_QUEUE_LIMIT = 10_000
_BATCH = 500
_COMMIT_EVERY_S = 0.5
_ROWS_PER_STATEMENT = 25  # with 36 columns within the 999 variables that every SQLite allows

_TRIM_SHARE = 0.01
"""Old rows are deleted once this share of `max_rows` was added: by so much the table may be too long."""

_UNSTORABLE = (OverflowError, ValueError, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError)
"""Errors of SQLite for a value, not for a file: integers beyond 64 bits, text that is no Unicode."""

_log = logging.getLogger(__name__)


class SampleStore:
    """An open store; `append` may be called from any thread, but not after `close`.

    `written`, `dropped` (no space in the queue, or a value that SQLite cannot hold) and `failures` (batches
    that could not be written and are tried again) only grow.
    """

    def __init__(self, path: Path, max_rows: int) -> None:
        self.written = 0
        self.dropped = 0
        self.failures = 0
        self._path = path
        self._max_rows = max_rows
        self._queue: deque[Sample] = deque()
        self._wake = threading.Event()
        self._is_closing = False
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._since_trim = max_rows  # so that the first batch trims what an earlier process left
        self._writing = ConditionLog(_log, "samples_not_written", "samples_written_again")
        self._thread = threading.Thread(target=self._run, name="sample-store", daemon=True)

    @classmethod
    def open(cls, path: Path, max_rows: int) -> Self:
        """Create or open the store and start its thread; raises SampleStoreError for any other file."""
        open_table(path).close()
        store = cls(path, max_rows)
        store._thread.start()
        return store

    def append(self, sample: Sample) -> None:
        """Have the sample written soon, or drop it; never blocks, never raises."""
        if len(self._queue) >= _QUEUE_LIMIT:
            self.dropped += 1
            return
        self._queue.append(sample)
        if len(self._queue) == _BATCH:  # once, and not for each further one while writing fails
            self._wake.set()

    def close(self) -> None:
        """Write what is queued and stop, blocking for seconds at most; what cannot be written is dropped."""
        self._is_closing = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        batch: list[Row] = []
        is_last_round = False
        while not is_last_round:
            self._wake.wait(_COMMIT_EVERY_S)
            self._wake.clear()
            is_last_round = self._is_closing
            while batch or self._queue:
                batch = batch or self._next_batch()
                if not self._try_write(batch):
                    break
                batch = []
        self.dropped += len(batch) + len(self._queue)
        self._disconnect()

    def _next_batch(self) -> list[Row]:
        return [row_of(self._queue.popleft()) for _ in range(min(_BATCH, len(self._queue)))]

    def _try_write(self, batch: list[Row]) -> bool:
        try:
            unstorable = self._write(batch)
        except (sqlite3.Error, OSError, SampleStoreError) as error:
            self.failures += 1
            self._writing.failed(str(error), time.monotonic())
            self._disconnect()
            return False
        self.dropped += unstorable
        self.written += len(batch) - unstorable
        self._writing.holds()
        return True

    def _write(self, batch: list[Row]) -> int:
        """Commit the batch, and return how many of its rows hold a value that SQLite cannot store."""
        trims = self._since_trim + len(batch) >= self._max_rows * _TRIM_SHARE
        with self._connected() as connection:
            unstorable = sum(
                _insert(connection, batch[start : start + _ROWS_PER_STATEMENT])
                for start in range(0, len(batch), _ROWS_PER_STATEMENT)
            )
            if trims:
                connection.execute(
                    "DELETE FROM samples WHERE rowid <= (SELECT max(rowid) FROM samples) - ?",
                    (self._max_rows,),
                )
        self._since_trim = 0 if trims else self._since_trim + len(batch)
        return unstorable

    def _connected(self) -> sqlite3.Connection:
        """Return the connection; a new one after a failure, or where the file was deleted or replaced."""
        if self._connection is not None and self._inode == _inode(self._path):
            return self._connection
        self._disconnect()
        self._connection = open_table(self._path)
        self._inode = _inode(self._path)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _insert(connection: sqlite3.Connection, rows: list[Row]) -> int:
    """Insert rows by one statement, or each by its own where one of them holds a value that cannot be stored.

    SQLite gives the interpreter's lock away for each statement, and to take it back from a busy event loop
    costs both threads more than the row does. Returns how many rows could not be stored.
    """
    try:
        connection.execute(insert_statement(len(rows)), [value for row in rows for value in row])
    except _UNSTORABLE:
        return 1 if len(rows) == 1 else sum(_insert(connection, [row]) for row in rows)
    return 0


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0
