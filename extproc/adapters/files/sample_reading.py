"""Reading the sample store, by columns: what sidecars have written beside it is taken in first.

Several readers may do that at once, and any of them may die at it: a file that was set aside (`sample_rows`)
is taken in by one transaction, which also notes its name, so that its samples are there once.
"""

import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from extproc.adapters.files.sample_rows import RowsFile, files_aside, unpacked
from extproc.adapters.files.sample_table import (
    BUSY_TIMEOUT_S,
    COLUMN_TYPES,
    COLUMNS,
    INSERT,
    check_schema,
    open_table,
    row_of,
)
from extproc.errors import SampleStoreError
from extproc.outcomes.facts import Sample

_ROWS_PER_READ = 20_000
_MAX_TEXT_BYTES = 1024
"""A model's name, the longest text, has at most 256 characters."""

_UNSTORABLE = (OverflowError, ValueError, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError)
"""Errors of SQLite for a value, not for a file: integers beyond 64 bits."""

_PAUSE_S = 0.01


def read_samples(path: Path, columns: Sequence[str] = COLUMNS) -> dict[str, npt.NDArray[Any]]:
    """Return the samples by column, in the order in which they were written.

    Numbers are float64, NaN where there is none; texts are objects, None where there is none; booleans are
    bool, False where there is none. Raises SampleStoreError where the file is not a readable store.
    """
    with open_for_reading(path) as connection:
        parts: list[dict[str, npt.NDArray[Any]]] = []
        last = 0
        while not parts or len(parts[-1][columns[0]]) == _ROWS_PER_READ:
            part, last = read_samples_after(connection, last, _ROWS_PER_READ, columns)
            parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in columns}


@contextmanager
def open_for_reading(path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Iterator[sqlite3.Connection]:
    """Yield a connection that changes nothing; SQLite's errors in the block become SampleStoreError.

    By then it has the rows that were written beside the store.
    """
    take_in(path, busy_timeout_s)
    if not path.is_file():  # SQLite would wait for a writer of a FIFO
        raise SampleStoreError(f"{path}: there is no such file")
    try:
        url = f"{path.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(url, uri=True, timeout=busy_timeout_s)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            check_schema(connection, path)
            yield connection
    except sqlite3.Error as error:
        raise SampleStoreError(f"{path}: {error}") from error


def read_samples_after(
    connection: sqlite3.Connection, rowid: int, limit: int, columns: Sequence[str]
) -> tuple[dict[str, npt.NDArray[Any]], int]:
    """Return at most `limit` samples after `rowid`, as `read_samples` has them, and the last one's rowid.

    Without a next sample the columns are empty, and the rowid is the one that was given.
    """
    rows = connection.execute(
        f"SELECT {_selected(columns)}, rowid FROM samples WHERE rowid > ? ORDER BY rowid LIMIT ?",
        (rowid, limit),
    ).fetchall()
    if not rows:
        return {name: _array(name, ()) for name in columns}, rowid
    *values, rowids = zip(*rows, strict=True)
    return {name: _array(name, part) for name, part in zip(columns, values, strict=True)}, rowids[-1]


def read_chunks(connection: sqlite3.Connection) -> Iterator[dict[str, list[Any]]]:
    """Yield all samples by column, some thousand rows at a time; a value has its column's type or is None."""
    cursor = connection.execute(f"SELECT {_selected(COLUMNS)} FROM samples ORDER BY rowid")
    while rows := cursor.fetchmany(_ROWS_PER_READ):
        yield {
            name: [_typed(COLUMN_TYPES[name], value) for value in values]
            for name, values in zip(COLUMNS, zip(*rows, strict=True), strict=True)
        }


def take_in(path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
    """Move what sidecars have written into the store; raises SampleStoreError where it cannot be moved."""
    try:
        _set_aside(path, time.monotonic() + busy_timeout_s)
        aside = files_aside(path)
        if aside:
            with closing(open_table(path, busy_timeout_s)) as connection:
                for file in aside:
                    _take_in(connection, file)
                    file.unlink(missing_ok=True)
    except (OSError, sqlite3.Error) as error:
        raise SampleStoreError(f"{path}: the newest samples cannot be taken in: {error}") from error


def _set_aside(path: Path, until_s: float) -> None:
    with closing(RowsFile(path)) as rows:
        while True:
            try:
                rows.set_aside()
                return
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise
                time.sleep(_PAUSE_S)


def _take_in(connection: sqlite3.Connection, file: Path) -> None:
    """Insert the samples of a file, unless that was done: the last file is noted, and they go in order."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE IF NOT EXISTS taken_in (file TEXT)")
        if connection.execute("SELECT 1 FROM taken_in WHERE file = ?", (file.name,)).fetchone():
            return
        for max_rows, samples in unpacked(_content(file)):
            for sample in samples:
                _insert(connection, sample)
            connection.execute(
                "DELETE FROM samples WHERE rowid <= (SELECT max(rowid) FROM samples) - ?", (max_rows,)
            )
        connection.execute("DELETE FROM taken_in")
        connection.execute("INSERT INTO taken_in VALUES (?)", (file.name,))


def _content(file: Path) -> bytes:
    """Return what a file has; nothing where it is gone, or no file."""
    try:
        return file.read_bytes() if stat.S_ISREG(file.lstat().st_mode) else b""
    except FileNotFoundError:
        return b""


def _insert(connection: sqlite3.Connection, sample: Sample) -> None:
    with suppress(*_UNSTORABLE):
        connection.execute(INSERT, row_of(sample))


def _selected(columns: Sequence[str]) -> str:
    """Select a column with its type: SQLite stores any, and a wrong or infinite value counts as missing."""
    return ", ".join(f'CASE WHEN {_is_valid(name)} THEN "{name}" END' for name in columns)


def _is_valid(name: str) -> str:
    if COLUMN_TYPES[name] is str:
        return f'typeof("{name}") = \'text\' AND length(CAST("{name}" AS BLOB)) <= {_MAX_TEXT_BYTES}'
    return f"typeof(\"{name}\") IN ('real', 'integer')"


def _typed(kind: type, value: Any) -> Any:
    if value is None or kind is str:
        return value
    if kind is float:
        return float(value)
    if not isinstance(value, int):
        return None
    return value == 1 if kind is bool else value


def _array(name: str, values: Sequence[Any]) -> npt.NDArray[Any]:
    if COLUMN_TYPES[name] is str:
        return np.array(values, dtype=object)
    numbers = np.array(values, dtype=np.float64)
    return numbers == 1.0 if COLUMN_TYPES[name] is bool else numbers
