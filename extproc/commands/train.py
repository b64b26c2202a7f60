"""`extproc train`: a model file from recorded samples, once."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    *,
    samples: Annotated[Path, typer.Option(help="What a sidecar or a profile has recorded.", metavar="FILE")],
    out: Annotated[
        Path,
        typer.Option(
            help="The model file: the incumbent is read from it, a better model is written to it, and a"
            " sidecar that uses it takes that over.",
            metavar="FILE",
        ),
    ],
    report: Annotated[
        Path | None, typer.Option(help="Write all numbers here, as JSON.", metavar="FILE")
    ] = None,
    tuning: Annotated[float, typer.Option(help="Seconds to search for good settings.", min=0)] = 10.0,
    low: Annotated[float, typer.Option(help="TTFT in seconds at which the medium zone begins.")] = 1.0,
    saturated: Annotated[float, typer.Option(help="TTFT in seconds at which it ends.")] = 10.0,
    margin: Annotated[
        float, typer.Option(help="By which share the incumbent's error has to be beaten.", min=0, max=1)
    ] = 0.05,
    force: Annotated[bool, typer.Option("--force", help="Publish whatever the gate says.")] = False,
    seed: Annotated[int, typer.Option(help="Of the search and the trees.")] = 0,
) -> None:
    """Fit layer 2 on recorded samples of the medium zone, judge it, and publish it if it is better.

    Exit status 1 where the gate has refused it.
    """
    from rich.console import Console  # noqa: PLC0415 - see the package's docstring

    from extproc.commands import train_command  # noqa: PLC0415 - see the package's docstring
    from extproc.commands.train_view import describe  # noqa: PLC0415 - see the package's docstring
    from extproc.learning.zone_bounds import ZoneBounds  # noqa: PLC0415 - see the package's docstring

    if not 0 < low < saturated:
        raise typer.BadParameter("--low must be above 0 and below --saturated")
    options = train_command.TrainOptions(
        samples, out, report, ZoneBounds(low, saturated), margin, tuning, is_forced=force, seed=seed
    )
    run = train_command.train(options)
    Console().print(describe(run))
    if not run.is_published:
        raise typer.Exit(1)
