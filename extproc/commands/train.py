"""`extproc train`: a model file from recorded samples, once."""

import time
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from extproc.commands.zone_options import ZoneOptions
from extproc.config.options import option, required, takes_options

if TYPE_CHECKING:
    from extproc.commands.train_view import TrainingRun


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions(ZoneOptions):
    """The options of `extproc train`."""

    samples: Path = required("Sample store that a sidecar or `extproc evaluate` has written.", metavar="FILE")
    out: Path = required(
        "Model file, with the present model or none; a better one replaces it, and a sidecar that uses the"
        " file takes it over.",
        metavar="FILE",
    )
    json: Path | None = option(None, "File for all numbers, as JSON.", metavar="FILE")
    tuning_s: float = option(10.0, "Time for the search of good settings, in seconds.", "--tuning", min=0)
    margin: float = option(
        0.05, "Share by which the new model's error has to be smaller than the incumbent's.", min=0, max=1
    )
    force: bool = option(False, "Publish the model even if the gate refuses it.", "--force")
    seed: int = option(0, "Seed of the search and the trees.")

    @property
    def command(self) -> str:
        """The command with its files."""
        config = "" if self.config is None else f" --config {self.config}"
        return f"extproc train{config} --samples {self.samples} --out {self.out}"

    def model_path(self) -> Path | None:
        """Return the model file that the sidecar uses, by its configuration; None without one."""
        from extproc.config.stages import load_config

        return None if self.config is None else load_config(self.config).model.path


@takes_options
def train(options: TrainOptions) -> None:
    """Train the model of layer 2, and publish it if it is better.

    Exit status 1 if the gate refuses it.
    """
    from rich.console import Console

    from extproc.commands.train_view import describe, next_step

    run = run_training(options)
    Console().print(describe(run), next_step(run, options), sep="\n")
    if not run.is_published:
        raise typer.Exit(1)


def run_training(options: TrainOptions) -> "TrainingRun":
    """Make a model, and replace the file at `out` by it if the gate accepts it, or with `force`.

    A model is published only after it was loaded as a sidecar would load it; a run that fails leaves the file
    alone. Raises SampleStoreError, TrainingError where the samples make no model or a file cannot be written,
    and ModelFileError where no sidecar would accept what was made.
    """
    import numpy as np

    from extproc.adapters.files.atomic_file import write_json
    from extproc.adapters.files.sample_reading import read_samples
    from extproc.adapters.trainer.published_model import incumbent_at, publish
    from extproc.commands.train_view import TrainingRun
    from extproc.errors import TrainingError
    from extproc.learning.dataset import TRAINING_COLUMNS, clean_observations
    from extproc.learning.fit import fit
    from extproc.learning.model_rules import GateRule
    from extproc.learning.tuning import candidates

    columns = read_samples(options.samples, TRAINING_COLUMNS)
    observations, dropped = clean_observations(columns)
    deadline_s = time.monotonic() + options.tuning_s
    settings = candidates(np.random.default_rng(options.seed))
    training = fit(
        observations,
        settings=takewhile(lambda _: time.monotonic() < deadline_s, settings),
        incumbent=incumbent_at(options.out),
        rule=GateRule(margin=options.margin),
        seed=options.seed,
        trained_at_s=time.time(),
        zone=options.read()[0],
    )
    is_published = training.verdict.is_accepted or options.force
    if is_published:
        publish(training, options.out)
    run = TrainingRun(training, len(columns["at_s"]), dropped, is_published)
    if options.json is not None:
        write_json(options.json, run.document(), TrainingError, indent=1)
    return run
