"""`extproc trainer`: the process that keeps learning beside a sidecar."""

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from extproc.commands.serve import LOG_FORMAT


def trainer(
    config: Annotated[
        Path,
        typer.Option(help="Configuration file of the sidecar, with the stage `trainer`.", metavar="FILE"),
    ] = Path("extproc.yaml"),
) -> None:
    """Train models from the sidecar's samples, again and again.

    It runs at the lowest priority, until SIGTERM or SIGINT.
    """
    for library in ("OPENBLAS", "OMP"):  # one core, and no threads that wait for work by spinning
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")

    from extproc.adapters.trainer.training_loop import run_trainer

    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    run_trainer(config)
