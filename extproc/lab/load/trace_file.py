"""A file of recorded requests, in one of the published formats; its first line says in which.

Where only lengths are wanted, it may also be a CSV file of these, or they are taken from a trace.
"""

import csv
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from extproc.errors import ConfigError
from extproc.lab.load.csv_traces import CSV_FORMATS, column_names, csv_format, read_csv_trace
from extproc.lab.load.mooncake import DESCRIPTION, is_mooncake, read_mooncake_trace
from extproc.lab.load.trace_reading import TextLines, text_lines
from extproc.lab.traffic.trace import Trace
from extproc.lab.traffic.workload import LENGTH_COLUMNS, MAX_TOKENS, Tokens

FORMATS = ", ".join((*(form.description for form in CSV_FORMATS), DESCRIPTION))

_SHOWN_CHARACTERS = 80


def read_trace_file(name: str) -> Trace:
    """Return the requests of a trace by time, the first one at 0.

    Raises ConfigError where the file cannot be read, is in no known format, has a line that is none of it, or
    has requests of one moment only.
    """
    with text_lines(name) as lines:
        trace = read_trace(lines)
    if not trace.duration_s:
        raise ConfigError(f"{name}: expected requests of more than one moment")
    return trace


def read_trace(lines: TextLines) -> Trace:
    """Return what `read_trace_file` does, of a file that is open."""
    first = lines.peek()
    if (form := csv_format(first)) is not None:
        return read_csv_trace(form, lines)
    if is_mooncake(first):
        return read_mooncake_trace(lines)
    shown = f"it begins with {first.strip()[:_SHOWN_CHARACTERS]!r}" if first else "it is empty"
    raise ConfigError(f"{lines.name}: not a trace in a known format: {shown}; expected {FORMATS}")


_EXPECTED = (
    f"expected a header with {' and '.join(LENGTH_COLUMNS)}, then whole numbers from 1 to {MAX_TOKENS}"
)


@lru_cache(maxsize=2)  # prompt and output usually name the same file
def read_length_file(name: str) -> Mapping[str, Tokens]:
    """Return the columns of lengths, those of one request in one row; an output of 0 tokens counts as 1.

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
