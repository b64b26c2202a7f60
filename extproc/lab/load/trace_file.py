"""A file of recorded requests, in one of the published formats; its first line says in which."""

from extproc.errors import ConfigError
from extproc.lab.load.csv_traces import CSV_FORMATS, csv_format, read_csv_trace
from extproc.lab.load.mooncake import DESCRIPTION, is_mooncake, read_mooncake_trace
from extproc.lab.load.text_lines import TextLines, text_lines
from extproc.lab.traffic.trace import Trace

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
