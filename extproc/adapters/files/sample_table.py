"""The table of samples in its SQLite file: its schema, one row of it, and reading it by columns.

The columns are `Sample`'s fields, and the terms of the estimate a column each. A file of a schema before is
taken over by the first that writes to it; a file with any other schema version is refused, never changed.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from extproc.errors import SampleStoreError
from extproc.fleet.wait_terms import ExpectedWait
from extproc.outcomes.facts import TRAVELLING, Sample

SCHEMA_VERSION = 4
"""To be raised with every change of `Sample`'s fields."""

_TAKEN_OVER = (2, 3)
"""Versions that are taken over: what they lack is missing in their rows, what is no column any more is
dropped."""
_ADDED = {"expected_cached_tokens", "ahead_tokens", *ExpectedWait._fields}
_REMOVED = {"model_log_ttft"}

_BUSY_TIMEOUT_S = 5.0
_ROWS_PER_READ = 20_000
_MAX_TEXT_BYTES = 1024
"""A model's name, the longest text, has at most 256 characters."""

_SQL_TYPES = {float: "REAL", int: "INTEGER", bool: "INTEGER", str: "TEXT"}

Row = tuple[Any, ...]


def _plain_type(annotation: Any) -> type:
    """Return `float` for `float | None`, and so on."""
    plain: type = get_args(annotation)[0] if get_origin(annotation) in (Union, UnionType) else annotation
    return plain


def _columns_of(name: str) -> dict[str, type]:
    """Return the columns of a field: one, or one for each term of the estimate."""
    plain = _plain_type(get_type_hints(Sample)[name])
    return dict.fromkeys(ExpectedWait._fields, float) if plain is ExpectedWait else {name: plain}


_FIELDS = [name for name in Sample.__struct_fields__ if name not in TRAVELLING]
COLUMN_TYPES: dict[str, type] = {
    column: kind for name in _FIELDS for column, kind in _columns_of(name).items()
}
COLUMNS: tuple[str, ...] = tuple(COLUMN_TYPES)

_DEFINITIONS = {name: f'"{name}" {_SQL_TYPES[kind]}' for name, kind in COLUMN_TYPES.items()}
_CREATE = f"CREATE TABLE samples ({', '.join(_DEFINITIONS.values())})"
_NAMES = ", ".join(f'"{name}"' for name in COLUMNS)  # quoted, because `foreign` is a word of SQL

# Without an adapter sqlite3 makes and drops an exception for each of these, as costly as the rest of a row.
sqlite3.register_adapter(bool, int)
sqlite3.register_adapter(type(None), lambda none: none)


@lru_cache(maxsize=64)
def insert_statement(rows: int) -> str:
    """Return the statement that inserts so many rows."""
    row = f"({', '.join('?' * len(COLUMNS))})"
    return f"INSERT INTO samples ({_NAMES}) VALUES {', '.join([row] * rows)}"


row_of: Callable[[Sample], Row] = attrgetter(
    *(f"estimate.{name}" if name in ExpectedWait._fields else name for name in COLUMNS)
)
"""Return the sample's values in the order of the columns."""


def open_table(path: Path) -> sqlite3.Connection:
    """Return a connection for writing; creates file and table. Raises SampleStoreError for any other file."""
    try:
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)
        try:
            _create_or_take_over(connection)
            _check_schema(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise SampleStoreError(f"{path}: {error}") from error
    return connection


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
def open_for_reading(path: Path, busy_timeout_s: float = _BUSY_TIMEOUT_S) -> Iterator[sqlite3.Connection]:
    """Yield a connection that changes nothing; SQLite's errors in the block become SampleStoreError."""
    try:
        url = f"{path.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(url, uri=True, timeout=busy_timeout_s)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            _check_schema(connection, path)
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


def _create_or_take_over(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")  # another sidecar may be about to do the same
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            connection.execute(_CREATE)
        elif _version(connection) in _TAKEN_OVER and _columns(connection) ^ set(COLUMNS) <= _ADDED | _REMOVED:
            found = _columns(connection)
            for name in sorted(set(COLUMNS) - found):
                connection.execute(f"ALTER TABLE samples ADD COLUMN {_DEFINITIONS[name]}")
            for name in sorted(found - set(COLUMNS)):
                connection.execute(f'ALTER TABLE samples DROP COLUMN "{name}"')
        else:
            return
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _columns(connection: sqlite3.Connection) -> set[str]:
    return {row[1] for row in connection.execute("PRAGMA table_info(samples)")}


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    found, version = _columns(connection), _version(connection)
    if not found:
        raise SampleStoreError(f"{path}: not a sample store")
    if version != SCHEMA_VERSION:
        hint = "; start a sidecar with it once" if version in _TAKEN_OVER else ""
        raise SampleStoreError(f"{path}: schema version {version}; this program uses {SCHEMA_VERSION}{hint}")
    if found != set(COLUMNS):
        raise SampleStoreError(f"{path}: the columns are not those of schema version {SCHEMA_VERSION}")


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
