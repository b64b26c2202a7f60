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
    samples: Annotated[Path, typer.Option(help="What a sidecar or `profile` has recorded.", metavar="FILE")],
    out: Annotated[Path, typer.Option(help="The file to write: .csv or .parquet.", metavar="FILE")],
) -> None:
    """Write all samples as CSV or Parquet."""
    from extproc.adapters.files.sample_export import export_samples

    print(f"{export_samples(samples, out)} samples in {out}")
