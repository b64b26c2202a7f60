"""Writes the samples of simulated runs to a sample store, one run after the other.

A run begins at second 0, so each is put behind the newest sample of the store, with a pause between: no
request of one run may be taken for a neighbour of another's. Equal runs give an equal store.
"""

from pathlib import Path

import msgspec

from extproc.adapters.files.sample_table import INSERT, open_table, row_of
from extproc.outcomes.facts import Sample

_PAUSE_S = 3600.0


class RunRecorder:
    """An open store; `close` it at the end. Raises SampleStoreError for a file that is none."""

    def __init__(self, path: Path) -> None:
        self._connection = open_table(path)
        self._samples: list[Sample] = []

    def record(self, sample: Sample) -> None:
        """Keep a sample of the run that goes on."""
        self._samples.append(sample)

    def end_run(self) -> None:
        """Write the samples of the run that has ended."""
        samples, self._samples = self._samples, []
        with self._connection as connection:
            (newest_s,) = connection.execute("SELECT max(at_s) FROM samples").fetchone()
            begun_s = (newest_s or 0.0) + _PAUSE_S
            rows = (row_of(msgspec.structs.replace(each, at_s=begun_s + each.at_s)) for each in samples)
            connection.executemany(INSERT, rows)

    def close(self) -> None:
        """Close the store."""
        self._connection.close()
