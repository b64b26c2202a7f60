"""The table of samples in its SQLite file: its schema, one row of it, and reading it by columns.

The columns are `Sample`'s fields in order. A file with another schema version is refused, never changed.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

import msgspec
import numpy as np
import numpy.typing as npt

from extproc.errors import SampleStoreError
from extproc.outcomes.sample import Sample

SCHEMA_VERSION = 2
"""To be raised with every change of `Sample`'s fields."""

_BUSY_TIMEOUT_S = 5.0
_ROWS_PER_READ = 20_000

_SQL_TYPES = {float: "REAL", int: "INTEGER", bool: "INTEGER", str: "TEXT"}

Row = tuple[Any, ...]


def _plain_type(annotation: Any) -> type:
    """`float` for `float | None`, and so on."""
    plain: type = get_args(annotation)[0] if isinstance(annotation, UnionType) else annotation
    return plain


_TYPES = {
    field.name: _plain_type(get_type_hints(Sample)[field.name]) for field in msgspec.structs.fields(Sample)
}
COLUMNS: tuple[str, ...] = tuple(_TYPES)

_COLUMN_DEFINITIONS = ", ".join(f'"{name}" {_SQL_TYPES[kind]}' for name, kind in _TYPES.items())
_CREATE = f"CREATE TABLE samples ({_COLUMN_DEFINITIONS})"  # quoted, because `foreign` is a word of SQL

_row_values = attrgetter(*COLUMNS)


@lru_cache(maxsize=64)
def insert_statement(rows: int) -> str:
    """The statement that inserts so many rows."""
    row = f"({', '.join('?' * len(COLUMNS))})"
    return f"INSERT INTO samples VALUES {', '.join([row] * rows)}"


def row_of(sample: Sample) -> Row:
    """The sample's values in the order of the columns."""
    row: Row = _row_values(sample)
    return row


def open_table(path: Path) -> sqlite3.Connection:
    """A connection for writing; creates file and table. Raises SampleStoreError for any other file."""
    try:
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)
        try:
            _create_if_new(connection)
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
    """The samples by column, in the order in which they were written.

    Numbers are float64, NaN where there is none; texts are objects, None where there is none; booleans are
    bool, False where there is none. Raises SampleStoreError where the file is not a readable store.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            _check_schema(connection, path)
            return _read(connection, columns)
    except sqlite3.Error as error:
        raise SampleStoreError(f"{path}: {error}") from error


def _create_if_new(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")  # another sidecar may be about to do the same
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            connection.execute(_CREATE)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    found = tuple(row[1] for row in connection.execute("PRAGMA table_info(samples)"))
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if not found:
        raise SampleStoreError(f"{path}: not a sample store")
    if version != SCHEMA_VERSION:
        raise SampleStoreError(f"{path}: schema version {version}; this program uses {SCHEMA_VERSION}")
    if found != COLUMNS:
        raise SampleStoreError(f"{path}: the columns are not those of schema version {SCHEMA_VERSION}")


def _read(connection: sqlite3.Connection, columns: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    # SQLite stores any type in any column; what is of the wrong one counts as missing.
    wanted = [
        f'CASE WHEN typeof("{name}") IN ({_storage(_TYPES[name])}) THEN "{name}" END' for name in columns
    ]
    cursor = connection.execute(f"SELECT {', '.join(wanted)} FROM samples ORDER BY rowid")
    parts: list[list[npt.NDArray[Any]]] = [[_array(name, ())] for name in columns]
    while rows := cursor.fetchmany(_ROWS_PER_READ):
        for name, part, values in zip(columns, parts, zip(*rows, strict=True), strict=True):
            part.append(_array(name, values))
    return {name: np.concatenate(part) for name, part in zip(columns, parts, strict=True)}


def _storage(kind: type) -> str:
    return "'text'" if kind is str else "'real', 'integer'"


def _array(name: str, values: Sequence[Any]) -> npt.NDArray[Any]:
    if _TYPES[name] is str:
        return np.array(values, dtype=object)
    numbers = np.array(values, dtype=np.float64)
    return numbers == 1.0 if _TYPES[name] is bool else numbers
