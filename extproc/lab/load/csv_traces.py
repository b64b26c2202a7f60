"""Traces in CSV: our own, and those that Azure and BurstGPT have published.

Sources: Azure/AzurePublicDataset, AzureLLMInferenceTrace of 2023 (Patel et al., "Splitwise", ISCA 2024) and
of 2024 (Stojkovic et al., "DynamoLLM", HPCA 2025); HPMLL/BurstGPT (Wang et al., "BurstGPT", KDD 2025), where
a request without response tokens is one that failed.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from extproc.errors import ConfigError
from extproc.lab.load.trace_reading import TextLines, TraceColumns
from extproc.lab.traffic.trace import Trace
from extproc.lab.traffic.workload import LENGTH_COLUMNS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SHOWN_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """A published format: its columns of time, prompt and output tokens, and how the time is read.

    With `has_failures` a request without output tokens is one that failed.
    """

    title: str
    columns: tuple[str, str, str]
    read_time: Callable[[str], float]
    units_per_s: float
    time_text: str
    has_failures: bool = False

    @property
    def description(self) -> str:
        """Say what a file has to begin with."""
        return f"{self.title} ({','.join(self.columns)})"


def _microseconds(text: str) -> float:
    """Return those of the epoch, which a float holds exactly; a time without offset is in UTC."""
    moment = datetime.fromisoformat(text.strip())
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) / _MICROSECOND


OWN = CsvFormat("this project's CSV", ("at_s", *LENGTH_COLUMNS), float, 1.0, "seconds")
AZURE = CsvFormat(
    "Azure's CSV",
    ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    _microseconds,
    1e6,
    "a date and a time",
)
BURST_GPT = CsvFormat(
    "BurstGPT's CSV",
    ("Timestamp", "Request tokens", "Response tokens"),
    float,
    1.0,
    "seconds",
    has_failures=True,
)
CSV_FORMATS = (OWN, AZURE, BURST_GPT)


def csv_format(header: str) -> CsvFormat | None:
    """Return the format whose columns a first line has, among others and in any order."""
    names = set(column_names(header))
    return next((each for each in CSV_FORMATS if set(each.columns) <= names), None)


def column_names(header: str) -> Sequence[str]:
    """Return the names in a first line; none where it is no line of CSV."""
    try:
        return [name.strip() for name in next(csv.reader([header]), ())]
    except csv.Error:
        return ()


def read_csv_trace(form: CsvFormat, lines: TextLines) -> Trace:
    """Read a file of that format, from its header on.

    Raises ConfigError, with the line, where a row has anything else than the header says.
    """
    columns, reader = TraceColumns(), csv.reader(lines)
    header = [name.strip() for name in next(reader)]
    at, prompt, output = (header.index(column) for column in form.columns)
    read_time = form.read_time
    try:
        for row in reader:
            if not row:
                continue
            if columns.is_full:
                columns.is_cut = True
                break
            if len(row) != len(header):
                raise ValueError(f"{len(row)} fields, not {len(header)}")
            if form.has_failures and _tokens(row[output]) == 0:
                columns.failures += 1
            else:
                columns.add(read_time(row[at]), _tokens(row[prompt]), _tokens(row[output]))
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError, csv.Error) as error:
        expected = f"expected {form.time_text} and two numbers of tokens"
        raise lines.fault(f"{expected}: {str(error)[:_SHOWN_CHARACTERS]}") from error
    if not columns.at:
        failed = f" but {columns.failures} that failed" if columns.failures else ""
        raise ConfigError(f"{lines.name}: no requests in it{failed}")
    return columns.trace(form.units_per_s)


def _tokens(text: str) -> int:
    """Return a whole number, which may be written as 12.0."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)
