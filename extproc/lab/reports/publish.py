"""Sample store in, report out: the page and the numbers, each replaced whole."""

from pathlib import Path

import numpy as np

from extproc.adapters.files.atomic_file import write_json, write_or_raise
from extproc.adapters.files.sample_table import read_samples
from extproc.errors import ReportError
from extproc.lab.reports.analysis_page import report_page
from extproc.learning.analysis.findings import DEFAULT_LIMIT_S, Analysis, analyze
from extproc.learning.dataset import TRAINING_COLUMNS
from extproc.learning.zone_bounds import DEFAULT_ZONE, ZoneBounds


def publish(
    samples: Path,
    page: Path,
    numbers: Path,
    *,
    bounds: ZoneBounds = DEFAULT_ZONE,
    limit_s: float = DEFAULT_LIMIT_S,
    seed: int = 0,
) -> Analysis:
    """Analyze a sample store and write the report; the same samples and seed give the same files.

    Raises SampleStoreError, and ReportError where a file cannot be written.
    """
    rng = np.random.default_rng(seed)
    columns = read_samples(samples, TRAINING_COLUMNS)
    analysis, observations = analyze(columns, rng, bounds=bounds, limit_s=limit_s)
    write_json(numbers, analysis, ReportError)
    write_or_raise(page, report_page(analysis, observations, samples.name, rng), ReportError)
    return analysis
