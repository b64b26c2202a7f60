"""The command that makes a model file from the sample store, once.

What it publishes has passed the gate, is loaded as a sidecar would load it, and replaces the old file at
once: a training run that fails leaves the model in use alone.
"""

import time
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import msgspec
import numpy as np

from extproc.adapters.files.published_model import incumbent_at, publish, write_file
from extproc.adapters.files.sample_table import read_samples
from extproc.learning.dataset import TRAINING_COLUMNS, Dropped, clean_observations
from extproc.learning.fit import Training, fit
from extproc.learning.model_rules import GateRule
from extproc.learning.tuning import candidates
from extproc.learning.zone_bounds import ZoneBounds


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What `extproc train` is told; with `is_forced` the gate's verdict is reported and not heeded."""

    samples: Path
    out: Path
    report: Path | None
    zone: ZoneBounds
    margin: float
    tuning_s: float
    is_forced: bool
    seed: int


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A training, the samples that it had, and whether its model was written."""

    training: Training
    rows: int
    dropped: dict[Dropped, int]
    is_published: bool


def train(options: TrainOptions) -> TrainingRun:
    """Make a model and write it to `out`, where a sidecar takes it over, if the gate lets it through.

    Raises SampleStoreError, TrainingError where the samples make no model or a file cannot be written, and
    ModelFileError where no sidecar would accept what was made.
    """
    columns = read_samples(options.samples, TRAINING_COLUMNS)
    observations, dropped = clean_observations(columns)
    deadline_s = time.monotonic() + options.tuning_s
    training = fit(
        observations,
        settings=takewhile(
            lambda _: time.monotonic() < deadline_s, candidates(np.random.default_rng(options.seed))
        ),
        incumbent=incumbent_at(options.out),
        rule=GateRule(margin=options.margin),
        seed=options.seed,
        trained_at_s=time.time(),
        zone=options.zone,
    )
    is_published = training.verdict.is_accepted or options.is_forced
    if is_published:
        publish(training, options.out)
    run = TrainingRun(training, len(columns["at_s"]), dropped, is_published)
    if options.report is not None:
        document = msgspec.json.encode(run_document(run))
        write_file(options.report, msgspec.json.format(document, indent=1) + b"\n")
    return run


def run_document(run: TrainingRun) -> dict[str, object]:
    """Everything that is known of a run, but for the trees."""
    return {
        "rows": run.rows,
        "dropped": run.dropped | dict(run.training.out_of_zone),
        "is_published": run.is_published,
        "manifest": run.training.model_file.manifest,
        "quality": run.training.quality,
    }
