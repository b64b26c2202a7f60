"""`extproc analyze`: a report on recorded samples, and configuration to paste."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from extproc.commands.zone_options import ZoneOptions
from extproc.config.options import option, required, takes_options

if TYPE_CHECKING:
    from extproc.learning.analysis.findings import Analysis


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzeOptions(ZoneOptions):
    """The options of `extproc analyze`."""

    samples: Path = required("Sample store that a sidecar or `extproc profile` has written.", metavar="FILE")
    page: Path = required("File for a page with plots.", metavar="FILE")
    json: Path | None = option(
        None, "File for all numbers, as JSON.", metavar="FILE", show_default="beside the report"
    )

    @property
    def numbers(self) -> Path:
        """The file for the numbers."""
        return self.json or self.page.with_suffix(".json")


@takes_options
def analyze(options: AnalyzeOptions) -> None:
    """Report what TTFT depends on, and which settings fit."""
    from extproc.learning.analysis.summary import summary

    if options.numbers == options.page:
        raise typer.BadParameter("must not be the report's own file", param_hint="--json")
    analysis = publish_report(options)
    for sentence in summary(analysis):
        typer.echo(f"- {sentence}")
    files = f"Report: {options.page}\nNumbers: {options.numbers}"
    typer.echo(f"\nProposed configuration:\n\n{analysis.yaml}\n{files}")
    typer.echo("Next: paste the settings into the sidecar's configuration, and restart the sidecar.")


def publish_report(options: AnalyzeOptions) -> "Analysis":
    """Analyze the samples and write both files, each replaced whole; the same samples give the same files.

    Raises SampleStoreError, ConfigError, and ReportError where a file cannot be written.
    """
    import numpy as np

    from extproc.adapters.files.atomic_file import write_json, write_or_raise
    from extproc.adapters.files.sample_reading import read_samples
    from extproc.errors import ReportError
    from extproc.lab.reports.analysis_page import report_page
    from extproc.learning.analysis.findings import analyze as analyze_samples
    from extproc.learning.dataset import TRAINING_COLUMNS

    rng = np.random.default_rng(0)
    bounds, limit_s = options.read()
    columns = read_samples(options.samples, TRAINING_COLUMNS)
    analysis, observations = analyze_samples(columns, rng, bounds=bounds, limit_s=limit_s)
    write_json(options.numbers, analysis, ReportError)
    page = report_page(analysis, observations, options.samples.name, rng)
    write_or_raise(options.page, page, ReportError)
    return analysis
