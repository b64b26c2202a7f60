"""A CSV file of request lengths, such as a published trace of an LLM service."""

import csv
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from extproc.errors import ConfigError
from extproc.lab.traffic.workload import LENGTH_COLUMNS, MAX_TOKENS, Tokens

_EXPECTED = (
    f"expected a header with {' and '.join(LENGTH_COLUMNS)}, then whole numbers from 1 to {MAX_TOKENS}"
)


@lru_cache(maxsize=2)  # prompt and output usually name the same file
def read_length_file(name: str) -> Mapping[str, Tokens]:
    """The columns of lengths, those of one request in one row; an output of 0 tokens counts as 1.

    Raises ConfigError, naming the line, where the file cannot be read or has anything else in these columns.
    """
    try:
        with Path(name).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if missing := set(LENGTH_COLUMNS) - set(rows.fieldnames or ()):
                raise ConfigError(f"{name}: no column {' and '.join(sorted(missing))}; {_EXPECTED}")
            lengths = [_lengths(name, rows.line_num, row) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{name}: cannot be read: {error}") from error
    if not lengths:
        raise ConfigError(f"{name}: no lengths in it; {_EXPECTED}")
    columns = np.array(lengths, np.int64).T
    return dict(zip(LENGTH_COLUMNS, columns, strict=True))


def _lengths(name: str, line: int, row: Mapping[str, str | None]) -> tuple[int, int]:
    try:
        prompt, output = (int(row[column] or "") for column in LENGTH_COLUMNS)
    except ValueError:
        prompt, output = -1, -1
    if not (1 <= prompt <= MAX_TOKENS and 0 <= output <= MAX_TOKENS):
        raise ConfigError(f"{name}, line {line}: {_EXPECTED}")
    return prompt, max(1, output)
