"""`extproc clusters`: Envoy's cluster file without a sidecar."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from extproc.commands.serve import LOG_FORMAT


def clusters(
    config: Annotated[
        Path, typer.Option(help="The sidecars' configuration, with a `discovery`.", metavar="FILE")
    ] = Path("extproc.yaml"),
) -> None:
    """Only write Envoy's cluster file, beside an Envoy whose sidecars run elsewhere. Ends as `serve` does."""
    import uvloop

    from extproc.adapters.discovery.membership_feed import write_clusters

    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    uvloop.run(write_clusters(config))
