"""`extproc samples`: what can be done with recorded samples."""

from pathlib import Path
from typing import Annotated

import typer

samples_app = typer.Typer(help="Work with recorded samples.", no_args_is_help=True, rich_markup_mode=None)


@samples_app.callback()
def _samples() -> None:
    pass


@samples_app.command()
def export(
    samples: Annotated[
        Path,
        typer.Option(help="Sample store that a sidecar or `extproc profile` has written.", metavar="FILE"),
    ],
    out: Annotated[Path, typer.Option(help="File to write, ending in .csv or .parquet.", metavar="FILE")],
) -> None:
    """Write all samples as CSV or Parquet."""
    from extproc.adapters.files.sample_export import export_samples

    print(f"{export_samples(samples, out)} samples in {out}")
