"""`extproc status`: shows a sidecar's state once, or again every second."""

import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from extproc.adapters.http.state_client import fetch_state
from extproc.commands.status_view import status_view
from extproc.errors import StackError

INTERVAL_S = 1.0


def show_status(url: str, console: Console) -> None:
    """Print the state; raises StackError where no sidecar answers."""
    console.print(status_view(fetch_state(url)))


def watch_status(url: str, console: Console) -> None:
    """Refresh the state until Ctrl-C. A sidecar that goes away later may come back; StackError at first."""
    with Live(status_view(fetch_state(url)), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(INTERVAL_S)
                try:
                    live.update(status_view(fetch_state(url)), refresh=True)
                except StackError as error:
                    live.update(Text(str(error), style="red"), refresh=True)
        except KeyboardInterrupt:
            return
