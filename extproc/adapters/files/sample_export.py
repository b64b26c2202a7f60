"""The sample store as CSV or Parquet, for tools that do not read SQLite.

Rows are copied in chunks, so memory does not grow with the store, and the file appears whole or not at all.
An unknown value is empty in CSV and null in Parquet.
"""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from extproc.adapters.files.atomic_file import replacement
from extproc.adapters.files.sample_reading import open_for_reading, read_chunks
from extproc.adapters.files.sample_table import COLUMN_TYPES, COLUMNS
from extproc.errors import SampleStoreError

_Chunks = Iterator[dict[str, list[Any]]]

_BOOL_TEXTS = {True: "true", False: "false", None: None}


def export_samples(samples: Path, out: Path) -> int:
    """Write all samples to `out`, in the format that its suffix names, and return how many there are.

    Raises SampleStoreError for another suffix, for Parquet without its library, and where a file cannot be
    read or written.
    """
    write = _WRITERS.get(out.suffix)
    if write is None:
        raise SampleStoreError(f"{out}: expected a name that ends in {' or '.join(_WRITERS)}")
    with open_for_reading(samples) as connection:
        try:
            with replacement(out) as temporary:
                return write(read_chunks(connection), temporary)
        except OSError as error:
            raise SampleStoreError(f"{out}: cannot be written: {error}") from error


def _write_csv(chunks: _Chunks, path: Path) -> int:
    rows = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for chunk in chunks:
            columns = [
                [_BOOL_TEXTS[value] for value in values] if COLUMN_TYPES[name] is bool else values
                for name, values in chunk.items()
            ]
            writer.writerows(zip(*columns, strict=True))
            rows += len(columns[0])
    return rows


def _write_parquet(chunks: _Chunks, path: Path) -> int:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional dependency
        from pyarrow import parquet  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise SampleStoreError("Parquet needs pyarrow: pip install 'vllm-extproc[parquet]'") from error
    types = {float: pa.float64(), int: pa.int64(), bool: pa.bool_(), str: pa.string()}
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMN_TYPES.items()])
    rows = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for chunk in chunks:
            writer.write_table(pa.table(chunk, schema))
            rows += len(chunk["at_s"])
    return rows


_WRITERS: dict[str, Callable[[_Chunks, Path], int]] = {".csv": _write_csv, ".parquet": _write_parquet}
