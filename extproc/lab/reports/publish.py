"""Sample store in, report out: the page and the numbers, each replaced whole."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from extproc.adapters.files.atomic_file import write_atomically
from extproc.adapters.files.sample_table import read_samples
from extproc.errors import ReportError
from extproc.lab.reports.analysis_page import report_page
from extproc.learning.analysis.findings import DEFAULT_LIMIT_S, Analysis, analyze
from extproc.learning.dataset import TRAINING_COLUMNS
from extproc.learning.zone_bounds import DEFAULT_ZONE, ZoneBounds


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """Where the page and the numbers go."""

    html: Path
    json: Path


def publish(
    samples: Path,
    files: ReportFiles,
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
    _write(files.json, msgspec.json.format(msgspec.json.encode(analysis)) + b"\n")
    _write(files.html, report_page(analysis, observations, samples.name, rng))
    return analysis


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}") from error
