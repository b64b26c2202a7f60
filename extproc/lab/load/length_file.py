"""A CSV file of request lengths, or a trace, of which the lengths are taken."""

import csv
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from extproc.errors import ConfigError
from extproc.lab.load.csv_traces import column_names, csv_format
from extproc.lab.load.mooncake import is_mooncake
from extproc.lab.load.text_lines import TextLines, text_lines
from extproc.lab.load.trace_file import FORMATS, read_trace
from extproc.lab.traffic.workload import LENGTH_COLUMNS, MAX_TOKENS, Tokens

_EXPECTED = (
    f"expected a header with {' and '.join(LENGTH_COLUMNS)}, then whole numbers from 1 to {MAX_TOKENS}"
)


@lru_cache(maxsize=2)  # prompt and output usually name the same file
def read_length_file(name: str) -> Mapping[str, Tokens]:
    """The columns of lengths, those of one request in one row; an output of 0 tokens counts as 1.

    Raises ConfigError, naming the line, where the file cannot be read or has anything else in these columns.
    """
    with text_lines(name) as lines:
        first = lines.peek()
        missing = set(LENGTH_COLUMNS) - set(column_names(first))
        if missing and (csv_format(first) is not None or is_mooncake(first)):
            trace = read_trace(lines)
            columns = trace.prompt_tokens, trace.output_tokens
        elif missing:
            names = " and ".join(sorted(missing))
            raise ConfigError(f"{name}: no column {names}; {_EXPECTED}, or a trace: {FORMATS}")
        else:
            columns = _columns(lines)
    return dict(zip(LENGTH_COLUMNS, columns, strict=True))


def _columns(lines: TextLines) -> tuple[Tokens, Tokens]:
    try:
        lengths = [_lengths(lines, row) for row in csv.DictReader(lines)]
    except csv.Error as error:
        raise lines.fault(f"{error}") from error
    if not lengths:
        raise ConfigError(f"{lines.name}: no lengths in it; {_EXPECTED}")
    prompts, outputs = np.array(lengths, np.int64).T
    return prompts, outputs


def _lengths(lines: TextLines, row: Mapping[str, str | None]) -> tuple[int, int]:
    try:
        prompt, output = (int(row[column] or "") for column in LENGTH_COLUMNS)
    except ValueError:
        prompt, output = -1, -1
    if not (1 <= prompt <= MAX_TOKENS and 0 <= output <= MAX_TOKENS):
        raise lines.fault(_EXPECTED)
    return prompt, max(1, output)
