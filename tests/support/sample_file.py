"""Sample stores for tests: rows written at once, and statements that no sidecar would run."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from extproc.adapters.files.sample_table import INSERT, open_table, row_of
from extproc.outcomes.facts import Sample

_SCHEMA_TWO = """
CREATE TABLE samples (
    "at_s" REAL, "backend" TEXT, "model" TEXT, "kind" TEXT, "is_stream" INTEGER, "layer" TEXT, "reason" TEXT,
    "model_version" TEXT, "predicted_ttft_s" REAL, "zone" TEXT, "num_running" REAL, "load" REAL,
    "num_waiting" REAL, "kv_cache_fraction" REAL, "input_tokens" REAL, "own" REAL, "foreign" REAL,
    "scrape_age_s" REAL, "text_bytes" INTEGER, "body_bytes" INTEGER, "token_limit" INTEGER,
    "priority" INTEGER, "status" INTEGER, "attempts" INTEGER, "failure" TEXT, "is_clean" INTEGER,
    "ttft_s" REAL, "duration_s" REAL, "response_bytes" INTEGER, "output_tokens" INTEGER,
    "cached_tokens" INTEGER
)
"""
_ROW_OF_SCHEMA_TWO = {
    "at_s": 1_690_000_000.0, "backend": "vllm-1", "model": "llama", "kind": "chat", "is_stream": 1,
    "layer": "least_load", "reason": "low_zone", "model_version": None, "predicted_ttft_s": None,
    "zone": "low", "num_running": 3.5, "load": 4.0, "num_waiting": 0.0, "kv_cache_fraction": 0.25,
    "input_tokens": 512.0, "own": 3.0, "foreign": 1.0, "scrape_age_s": 0.05, "text_bytes": 2048,
    "body_bytes": 2100, "token_limit": None, "priority": 0, "status": 200, "attempts": 1, "failure": None,
    "is_clean": 1, "ttft_s": 0.42, "duration_s": 3.1, "response_bytes": 9000, "output_tokens": None,
    "cached_tokens": None,
}  # fmt: skip
"""The columns in their order, and values."""


def write_samples(path: Path, *samples: Sample) -> None:
    """Append samples, to a store that may be new."""
    with closing(open_table(path)) as connection, connection:
        connection.executemany(INSERT, map(row_of, samples))


def execute(path: Path, statement: str) -> None:
    """Run SQL on the file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def write_schema_two(path: Path, **changes: Any) -> None:
    """Make a store with one row as a sidecar of the version before made it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        with connection:
            connection.execute(_SCHEMA_TWO)
            connection.execute("PRAGMA user_version = 2")
            connection.execute(*schema_two_row(**changes))


def schema_two_row(**changes: Any) -> tuple[str, list[Any]]:
    """The statement by which a sidecar of the version before writes a row, and its values."""
    values = list((_ROW_OF_SCHEMA_TWO | changes).values())
    return f"INSERT INTO samples VALUES ({', '.join('?' * len(values))})", values
