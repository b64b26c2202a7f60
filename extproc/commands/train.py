"""`extproc train`: a model file from recorded samples, once."""

import time
from pathlib import Path
from typing import Annotated

import typer


def train(
    samples: Annotated[Path, typer.Option(help="What a sidecar has recorded.", metavar="FILE")],
    out: Annotated[
        Path,
        typer.Option(help="The model file to write; a sidecar that uses it takes it over.", metavar="FILE"),
    ],
) -> None:
    """Fit layer 2 on recorded samples of the medium zone."""
    from rich.console import Console  # noqa: PLC0415 - see the package's docstring

    from extproc.adapters.terminal import train_command  # noqa: PLC0415 - see the package's docstring

    report = train_command.train(samples, out, trained_at_s=time.time())
    Console().print(train_command.describe(report))
