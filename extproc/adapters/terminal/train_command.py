"""The command that makes a model file from the sample store.

It runs in a process of its own. What it publishes is loaded first as a sidecar would load it, and then
replaces the old file at once: a training run that fails leaves the model in use alone.
"""

import math
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from extproc.adapters.files.atomic_file import write_atomically
from extproc.adapters.files.sample_table import read_samples
from extproc.errors import TrainingError
from extproc.learning.dataset import TRAINING_COLUMNS
from extproc.learning.fit import TrainingReport, fit
from extproc.learning.model_file import dump, load


def train(samples: Path, out: Path, *, trained_at_s: float, seed: int = 0) -> TrainingReport:
    """Write a model file made from the store `samples`; `trained_at_s` is a unix time.

    Raises SampleStoreError, TrainingError where the samples make no model or the file cannot be written,
    and ModelFileError where no sidecar would accept what was made.
    """
    model_file, report = fit(read_samples(samples, TRAINING_COLUMNS), seed=seed, trained_at_s=trained_at_s)
    data = dump(model_file)
    load(data)
    try:
        write_atomically(out, data)
    except OSError as error:
        raise TrainingError(f"{out}: {error.strerror}") from error
    return report


def describe(report: TrainingReport) -> Table:
    """What a training run made and dropped, for the terminal."""
    manifest, errors = report.manifest, report.manifest.held_out_errors
    pairs = errors.pairwise_accuracy
    table = Table(title=f"model {manifest.model_version}, {report.n_trees} trees", show_header=False)
    table.add_row("samples read", str(report.rows))
    for reason, count in report.dropped.items():
        if count:
            table.add_row(f"  {reason.replace('_', ' ')}", str(count))
    table.add_row("trained on / held out", f"{manifest.samples.train} / {manifest.samples.held_out}")
    table.add_row("median relative error", f"{errors.median_relative_error:.1%}")
    table.add_row("predictions within 20 %", f"{errors.share_within_20_percent:.1%}")
    table.add_row("faster backend picked", "too few pairs" if pairs is None else f"{pairs:.1%}")
    if manifest.medium_load is not None:
        table.add_row("medium zone from load", f"{manifest.medium_load:g}")
    for backend, offset in report.offsets.items():
        table.add_row(escape(f"TTFT of {backend} against the fleet's"), f"{math.exp(offset):.2f} times")
    return table
