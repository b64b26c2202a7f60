"""`extproc status`: the state of a sidecar, once or again every second."""

import time
from contextlib import suppress
from typing import Annotated

import typer

from extproc.lab.local_stack.stack_options import StackOptions

INTERVAL_S = 1.0


def status(
    sidecar: Annotated[
        str, typer.Option(help="HTTP address of the sidecar.", metavar="URL")
    ] = f"http://127.0.0.1:{StackOptions().http_port}",
    watch: Annotated[
        bool, typer.Option("--watch", help="Refresh the table every second, until Ctrl-C.")
    ] = False,
    all_: Annotated[
        bool, typer.Option("--all", help="Show every backend, not only the 40 that have most to do.")
    ] = False,
) -> None:
    """Show what is wrong, each backend, and the last minute."""
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

    from extproc.adapters.http.fleet_state import fetch_state
    from extproc.commands.status_view import MOST_BACKENDS, status_view
    from extproc.errors import StackError

    def view() -> RenderableType:
        state = fetch_state(sidecar)
        return status_view(state, len(state.backends) if all_ else MOST_BACKENDS)

    console, shown = Console(), view()
    if not watch:
        console.print(shown)
        return
    with Live(shown, console=console, auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            time.sleep(INTERVAL_S)
            try:
                shown = view()
            except StackError as error:  # a sidecar that goes away may come back
                shown = Text(str(error), style="red")
            live.update(shown, refresh=True)
