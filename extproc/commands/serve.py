"""`extproc serve`: the sidecar."""

import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def serve(
    config: Annotated[
        Path, typer.Option(help="Configuration file; extproc.example.yaml documents it.", metavar="FILE")
    ] = Path("extproc.yaml"),
    log_level: Annotated[
        Literal["debug", "info", "warning"],
        typer.Option(help="Level of the log; debug adds a line for every request, at its outcome."),
    ] = "info",
) -> None:
    """Run the sidecar until SIGTERM or SIGINT. The list of backends in its file may change meanwhile."""
    import uvloop

    from extproc.app import serve as serve_sidecar

    logging.basicConfig(level=log_level.upper(), format=LOG_FORMAT)
    uvloop.run(serve_sidecar(config))
