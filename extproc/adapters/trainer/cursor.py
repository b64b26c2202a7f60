"""A place in the growing sample store: each reading brings what was written since the one before.

The store belongs to the sidecar. It may not exist yet, be trimmed at its old end, deleted and begun anew, or
be no store at all for a while; so every reading opens it afresh, and the place moves on only with what was
read. Row ids only grow within one store. The row last read shows whether it is still the same one.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from extproc.adapters.files.sample_reading import open_for_reading, read_samples_after
from extproc.learning.dataset import TRAINING_COLUMNS
from extproc.learning.drift import DRIFT_COLUMNS

COLUMNS = tuple(dict.fromkeys((*TRAINING_COLUMNS, *DRIFT_COLUMNS)))
"""The fields of `Sample` that the trainer reads."""

_CLOCK_SKEW_S = 60.0
"""Guessed: sidecars on other machines write with their own clocks."""

CHUNK_ROWS = 20_000
"""Measured: to read and clean this many takes 0.2 s."""

_BUSY_TIMEOUT_S = 0.5
"""A writer in WAL mode locks no reader out; any other lock is waited for again at the next reading."""

_Mark = tuple[Any, ...]


def plausible(columns: Mapping[str, npt.NDArray[Any]], now_s: float) -> dict[str, npt.NDArray[Any]]:
    """Return the same columns, without times after `now_s` (a unix time).

    A sample from the future would stay the newest for ever, and so judge every model. Cleaning cannot see it,
    because that knows no time.
    """
    at_s = np.asarray(columns["at_s"], dtype=np.float64)
    return {**columns, "at_s": np.where(at_s > now_s + _CLOCK_SKEW_S, np.nan, at_s)}


class SampleCursor:
    """Reads a store chunk by chunk; `is_behind` says that the last reading brought a full chunk."""

    def __init__(self, path: Path, columns: Sequence[str], chunk_rows: int = CHUNK_ROWS) -> None:
        self.is_behind = False
        self._path = path
        self._columns = tuple(columns)
        self._chunk_rows = chunk_rows
        self._rowid = 0
        self._mark: _Mark | None = None

    def read(self) -> dict[str, npt.NDArray[Any]]:
        """Return the next samples, in the order of writing, as `read_samples` has them; there may be none.

        In a store that was replaced it begins at the start. Raises SampleStoreError where nothing can be
        read; nothing is lost by that.
        """
        self.is_behind = False
        with open_for_reading(self._path, _BUSY_TIMEOUT_S) as connection:
            after = 0 if self._is_another_store(connection) else self._rowid
            columns, last = read_samples_after(connection, after, self._chunk_rows, self._columns)
            mark = _mark(connection, last)
        self._rowid, self._mark = last, mark
        self.is_behind = len(columns[self._columns[0]]) == self._chunk_rows
        return columns

    def _is_another_store(self, connection: sqlite3.Connection) -> bool:
        found = _mark(connection, self._rowid)
        if found is not None:
            return found != self._mark
        (newest,) = connection.execute("SELECT max(rowid) FROM samples").fetchone()
        return (newest or 0) < self._rowid  # otherwise the row was among the oldest, and was trimmed


def _mark(connection: sqlite3.Connection, rowid: int) -> _Mark | None:
    mark: _Mark | None = connection.execute(
        "SELECT at_s, backend, duration_s, response_bytes FROM samples WHERE rowid = ?", (rowid,)
    ).fetchone()
    return mark
