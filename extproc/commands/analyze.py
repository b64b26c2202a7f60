"""`extproc analyze`: a report on recorded samples, and configuration to paste."""

from pathlib import Path
from typing import Annotated

import typer


def analyze(
    *,
    samples: Annotated[Path, typer.Option(help="What a sidecar or a profile has recorded.", metavar="FILE")],
    out: Annotated[Path, typer.Option(help="The report to write, one HTML page.", metavar="FILE")],
    json: Annotated[
        Path | None,
        typer.Option(help="The numbers to write.", metavar="FILE", show_default="beside the report"),
    ] = None,
    low_s: Annotated[float, typer.Option(help="TTFT below it is the low zone.", min=0.001)] = 1.0,
    saturated_s: Annotated[float, typer.Option(help="TTFT from it on is the saturated zone.")] = 10.0,
) -> None:
    """Say what TTFT depends on, where requests wait, and where the guard should stand."""
    from extproc.lab.reports.publish import (  # noqa: PLC0415 - see the package's docstring
        ReportFiles,
        publish,
    )
    from extproc.learning.analysis.summary import summary  # noqa: PLC0415 - see the package's docstring
    from extproc.learning.zone_bounds import ZoneBounds  # noqa: PLC0415 - see the package's docstring

    if not low_s < saturated_s:
        raise typer.BadParameter("must be larger than --low-s", param_hint="--saturated-s")
    files = ReportFiles(out, json or out.with_suffix(".json"))
    if files.html == files.json:
        raise typer.BadParameter("must not be the report's own file", param_hint="--json")
    analysis = publish(samples, files, bounds=ZoneBounds(low_s, saturated_s))
    for sentence in summary(analysis):
        typer.echo(f"- {sentence}")
    typer.echo(f"\nProposed configuration:\n\n{analysis.yaml}\nReport: {files.html}\nNumbers: {files.json}")
