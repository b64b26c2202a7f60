"""The table of samples in its SQLite file: its schema, and one row of it.

The columns are `Sample`'s fields, and the terms of the estimate a column each. A file of a schema before is
taken over by the first that writes to it; a file with any other schema version is refused, never changed.
"""

import sqlite3
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

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

BUSY_TIMEOUT_S = 5.0
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
INSERT = f"INSERT INTO samples ({_NAMES}) VALUES ({', '.join('?' * len(COLUMNS))})"

# Without an adapter sqlite3 makes and drops an exception for each of these, as costly as the rest of a row.
sqlite3.register_adapter(bool, int)
sqlite3.register_adapter(type(None), lambda none: none)


row_of: Callable[[Sample], Row] = attrgetter(
    *(f"estimate.{name}" if name in ExpectedWait._fields else name for name in COLUMNS)
)
"""Return the sample's values in the order of the columns."""


def open_table(path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """Return a connection for writing; creates file and table. Raises SampleStoreError for any other file."""
    try:
        connection = sqlite3.connect(path, timeout=busy_timeout_s)
        try:
            _create_or_take_over(connection)
            check_schema(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise SampleStoreError(f"{path}: {error}") from error
    return connection


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


def check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Raise SampleStoreError for a file with other columns."""
    found, version = _columns(connection), _version(connection)
    if not found:
        raise SampleStoreError(f"{path}: not a sample store")
    if version != SCHEMA_VERSION:
        hint = "; start a sidecar with it once" if version in _TAKEN_OVER else ""
        raise SampleStoreError(f"{path}: schema version {version}; this program uses {SCHEMA_VERSION}{hint}")
    if found != set(COLUMNS):
        raise SampleStoreError(f"{path}: the columns are not those of schema version {SCHEMA_VERSION}")
