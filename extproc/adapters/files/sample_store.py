"""The sample store as a sidecar has it: samples are kept for half a second, and then written as one block.

It takes samples where an outcome is complete, and must never hold the event loop up: a flush is one write to
the page cache, with no sync (`sample_rows`). A reader of the store makes SQLite of the written rows
(`sample_reading`). A sample without room in memory, while nothing can be written, is dropped and counted,
because a missing sample costs nothing and a late decision does.
"""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Self

from extproc.adapters.condition_log import ConditionLog
from extproc.adapters.files.sample_rows import RowsFile, packed
from extproc.adapters.files.sample_table import open_table
from extproc.outcomes.facts import Sample

Later = Callable[[float, Callable[[], None]], object]
"""Calls back after this many seconds, as `loop.call_later` does."""

_LIMIT = 10_000
_BATCH = 500
_FLUSH_EVERY_S = 0.5
_ROW_BYTES = 300  # measured: 240 in a block of 500, 280 in one of ten, 640 alone
_FILES = 8
"""`max_rows` consist of this many parts, as far as no reader has taken them in: the oldest goes whole."""

_CLOSING_S = 2.0
_PAUSE_S = 0.01

_log = logging.getLogger(__name__)


class SampleStore:
    """An open store; `append` has what it takes written soon, until `close`.

    `written`, `dropped` (no space in memory, or a value that cannot be stored) and `failures` (blocks that
    could not be written and are tried again) only grow.
    """

    def __init__(self, path: Path, max_rows: int, later: Later) -> None:
        self.written = 0
        self.dropped = 0
        self.failures = 0
        self._max_rows = max_rows
        self._later = later
        self._rows = RowsFile(path, max_rows * _ROW_BYTES // _FILES)
        self._samples: list[Sample] = []
        self._is_flush_due = False
        self._writing = ConditionLog(_log, "samples_not_written", "samples_written_again")

    @classmethod
    def open(cls, path: Path, max_rows: int, later: Later) -> Self:
        """Create or take over the store; raises SampleStoreError for any other file. May block."""
        with closing(open_table(path)):
            return cls(path, max_rows, later)

    def append(self, sample: Sample) -> None:
        """Have the sample written soon, or drop it; never blocks, never raises."""
        if len(self._samples) >= _LIMIT:
            self.dropped += 1
            return
        self._samples.append(sample)
        if not self._is_flush_due:
            self._is_flush_due = True
            self._later(_FLUSH_EVERY_S, self._flush)

    def close(self) -> None:
        """Write what is left, blocking for seconds at most; what cannot be written is dropped."""
        until_s, failures = time.monotonic() + _CLOSING_S, self.failures
        while self._samples and self.failures == failures and time.monotonic() < until_s:
            if not self._write():
                time.sleep(_PAUSE_S)
        self.dropped += len(self._samples)
        self._samples = []
        self._rows.close()

    def _flush(self) -> None:
        """Write a block; of more than one the others follow at once, when the loop has had its turn."""
        is_written = not self._samples or self._write()
        self._is_flush_due = bool(self._samples)
        if self._samples:
            self._later(0.0 if is_written else _FLUSH_EVERY_S, self._flush)

    def _write(self) -> bool:
        block, unstorable = packed(self._samples[:_BATCH], self._max_rows)
        try:
            self._rows.append(block)
        except BlockingIOError:
            return False  # another sidecar writes at this moment, or a reader sets the file aside
        except OSError as error:
            self.failures += 1
            self._writing.failed(str(error), time.monotonic())
            self._rows.close()
            return False
        count = len(self._samples[:_BATCH])
        del self._samples[:count]
        self.dropped += unstorable
        self.written += count - unstorable
        self._writing.holds()
        return True
