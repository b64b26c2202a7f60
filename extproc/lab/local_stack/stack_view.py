"""The output of `extproc up`: addresses, and a request to copy. Pure: plain data in, renderables out."""

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from extproc.adapters.http.fleet_state import BackendStatus, FleetState


@dataclass(frozen=True, slots=True)
class StackPart:
    """One thing that runs: where it is reached, what it is there for, its process if it is ours."""

    name: str
    address: str
    purpose: str
    pid: int | None


def unready_backends(state: FleetState) -> str | None:
    """Return the backends that take no requests yet, or never answered, and why; None without backends."""
    faults = [
        f"{backend.name} ({backend.address}): {_fault(backend)}"
        for backend in state.backends
        if _fault(backend)
    ]
    return "; ".join(faults) or None


def stack_view(parts: Iterable[StackPart], directory: str, is_temporary: bool) -> RenderableType:
    """Return the table of parts, and where their files are."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for title in ("what", "where", "what for", "pid"):
        table.add_column(title, overflow="fold")
    for part in parts:
        pid = "" if part.pid is None else str(part.pid)
        table.add_row(Text(part.name), Text(part.address), Text(part.purpose), pid)
    kept = "removed at the end; --run-dir DIR keeps them" if is_temporary else "kept"
    return Group(table, Text(f"\nLogs, configuration and samples: {directory} ({kept})", overflow="fold"))


def curl_line(port: int, models: Iterable[str]) -> str:
    """Return a streaming chat request for the first of the models; `-i` shows layer and backend."""
    body = {
        "model": min(models, default="MODEL"),
        "stream": True,
        "max_tokens": 16,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    return f"curl -iN {url} -H 'content-type: application/json' -d {shlex.quote(json.dumps(body))}"


def _fault(backend: BackendStatus) -> str | None:
    if not backend.is_routable:
        return backend.reason
    if backend.models is None and backend.scrape_age_s is None:
        return "does not answer"
    return None
