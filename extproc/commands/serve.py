"""`extproc serve`: the sidecar."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class LogLevel(StrEnum):
    """How much the sidecar says on stderr."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"


def serve(
    config: Annotated[
        Path, typer.Option(help="The configuration; extproc.example.yaml documents it.", metavar="FILE")
    ] = Path("extproc.yaml"),
    log_level: Annotated[
        LogLevel, typer.Option(help="debug adds a line for every request, at its outcome.")
    ] = LogLevel.INFO,
) -> None:
    """Run the sidecar until SIGTERM or SIGINT. The backends in its file may change meanwhile."""
    import uvloop

    from extproc.app import serve as serve_sidecar

    logging.basicConfig(level=log_level.upper(), format=LOG_FORMAT)
    uvloop.run(serve_sidecar(config))
