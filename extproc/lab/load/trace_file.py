"""A CSV file of recorded requests: when each came, and how long it was."""

import csv
from pathlib import Path

import numpy as np

from extproc.errors import ConfigError
from extproc.lab.load.length_file import read_length_file
from extproc.lab.traffic.arrivals import Floats
from extproc.lab.traffic.workload import LENGTH_COLUMNS, Tokens

TIME_COLUMN = "at_s"


def read_trace_file(name: str) -> tuple[Floats, Tokens, Tokens]:
    """Times in seconds from the first request, prompts and outputs, sorted by time.

    Raises ConfigError where the file cannot be read, or has anything but numbers in these columns.
    """
    lengths = read_length_file(name)
    try:
        with Path(name).open(encoding="utf-8-sig", newline="") as file:
            at_s = np.array([float(row[TIME_COLUMN]) for row in csv.DictReader(file)])
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise ConfigError(f"{name}: expected seconds in a column {TIME_COLUMN}: {error}") from error
    if not np.isfinite(at_s).all():
        raise ConfigError(f"{name}: the times in {TIME_COLUMN} must be finite")
    order = np.argsort(at_s, kind="stable")
    prompts, outputs = (lengths[column][order] for column in LENGTH_COLUMNS)
    return at_s[order] - at_s[order[0]], prompts, outputs
