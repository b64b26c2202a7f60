"""Sample stores for tests: rows written at once, and statements that no sidecar would run."""

import sqlite3
from contextlib import closing
from pathlib import Path

from extproc.adapters.files.sample_table import insert_statement, open_table, row_of
from extproc.outcomes.sample import Sample


def write_samples(path: Path, *samples: Sample) -> None:
    """Append samples, to a store that may be new."""
    with closing(open_table(path)) as connection, connection:
        connection.executemany(insert_statement(1), map(row_of, samples))


def execute(path: Path, statement: str) -> None:
    """Run SQL on the file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
