"""The traffic of the last minute beside that since the start, as a table."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from extproc.outcomes.traffic_window import TrafficWindow


def traffic_view(minute: TrafficWindow, whole: TrafficWindow) -> Table:
    """Show requests, refusals by reason, failures by result, and TTFT."""
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("requests", overflow="fold")
    for title in (f"last {minute.seconds:.0f} s", "since the start"):
        table.add_column(title, justify="right")
    for name in sorted({*minute.decisions, *whole.decisions}):
        is_bad = name.startswith("reject.")
        _add(table, name, minute.decisions.get(name, 0), whole.decisions.get(name, 0), is_bad=is_bad)
    for name in sorted({*minute.results, *whole.results}):
        _add(table, f"ended: {name}", minute.results.get(name, 0), whole.results.get(name, 0))
    _add(table, "failed at a backend", minute.failed, whole.failed, is_bad=True)
    _add(table, "failed open", minute.failed_open, whole.failed_open, is_bad=True)
    for title, one, other in _times(minute, whole):
        table.add_row(title, one, other)
    return table


def _add(table: Table, name: str, minute: int, whole: int, *, is_bad: bool = False) -> None:
    table.add_row(Text(name), Text(f"{minute:,}", style="red" if is_bad and minute else ""), f"{whole:,}")


def _times(minute: TrafficWindow, whole: TrafficWindow) -> Iterator[tuple[str, str, str]]:
    for title, field in (("users", "client_ttft"), ("servers", "ttft")):
        yield f"TTFT of {title}, p50 / p99", _quantiles(minute, field), _quantiles(whole, field)


def _quantiles(traffic: TrafficWindow, field: str) -> str:
    values = (getattr(traffic, f"{field}_{name}_s") for name in ("p50", "p99"))
    return " / ".join("-" if value is None else f"{value:.2f} s" for value in values)
