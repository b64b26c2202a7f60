"""`extproc clusters`: Envoy's cluster file without a sidecar."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from extproc.commands.serve import LOG_FORMAT


def clusters(
    config: Annotated[
        Path, typer.Option(help="Configuration file of the sidecars, with a `discovery`.", metavar="FILE")
    ] = Path("extproc.yaml"),
) -> None:
    """Write Envoy's cluster file, for sidecars that run elsewhere.

    It runs until SIGTERM or SIGINT.
    """
    import uvloop

    from extproc.adapters.discovery.membership_feed import write_clusters

    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    uvloop.run(write_clusters(config))
