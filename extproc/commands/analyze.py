"""`extproc analyze`: a report on recorded samples, and configuration to paste."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from extproc.config.options import option, required, takes_options

if TYPE_CHECKING:
    from extproc.learning.analysis.findings import Analysis


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzeOptions:
    """The options of `extproc analyze`."""

    samples: Path = required("Sample store that a sidecar or `extproc profile` has written.", metavar="FILE")
    out: Path = required("File for the report, one HTML page.", metavar="FILE")
    json: Path | None = option(
        None, "File for the numbers, as JSON.", metavar="FILE", show_default="beside the report"
    )
    low_s: float = option(1.0, "TTFT at which the low zone ends, in seconds.", min=0.001)
    saturated_s: float = option(10.0, "TTFT at which the saturated zone begins, in seconds.")

    @property
    def numbers(self) -> Path:
        """The file for the numbers."""
        return self.json or self.out.with_suffix(".json")


@takes_options
def analyze(options: AnalyzeOptions) -> None:
    """Report what TTFT depends on, where requests wait, and which guard settings fit."""
    from extproc.learning.analysis.summary import summary

    if not options.low_s < options.saturated_s:
        raise typer.BadParameter("must be larger than --low-s", param_hint="--saturated-s")
    if options.numbers == options.out:
        raise typer.BadParameter("must not be the report's own file", param_hint="--json")
    analysis = publish_report(options)
    for sentence in summary(analysis):
        typer.echo(f"- {sentence}")
    files = f"Report: {options.out}\nNumbers: {options.numbers}"
    typer.echo(f"\nProposed configuration:\n\n{analysis.yaml}\n{files}")


def publish_report(options: AnalyzeOptions) -> "Analysis":
    """Analyze the samples and write both files, each replaced whole; the same samples give the same files.

    Raises SampleStoreError, and ReportError where a file cannot be written.
    """
    import numpy as np

    from extproc.adapters.files.atomic_file import write_json, write_or_raise
    from extproc.adapters.files.sample_reading import read_samples
    from extproc.errors import ReportError
    from extproc.lab.reports.analysis_page import report_page
    from extproc.learning.analysis.findings import analyze as analyze_samples
    from extproc.learning.dataset import TRAINING_COLUMNS
    from extproc.learning.features import ZoneBounds

    rng, bounds = np.random.default_rng(0), ZoneBounds(options.low_s, options.saturated_s)
    columns = read_samples(options.samples, TRAINING_COLUMNS)
    analysis, observations = analyze_samples(columns, rng, bounds=bounds)
    write_json(options.numbers, analysis, ReportError)
    page = report_page(analysis, observations, options.samples.name, rng)
    write_or_raise(options.out, page, ReportError)
    return analysis
