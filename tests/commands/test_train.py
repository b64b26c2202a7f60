import io
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from rich.console import Console
from support.clean_sample import SAMPLE

from extproc.adapters.files.sample_table import INSERT, open_table, row_of
from extproc.commands.train import TrainOptions, run_training
from extproc.commands.train_view import describe, gain_sentence, next_step
from extproc.errors import ConfigError, SampleStoreError, TrainingError
from extproc.fleet.wait_terms import ExpectedWait
from extproc.fleet.zone import Zone
from extproc.learning.dataset import Dropped
from extproc.learning.model_file import load
from extproc.learning.training_quality import Route


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """600 samples of two backends, one twice as slow, and one row that was never filled in."""
    path = tmp_path / "samples.db"
    rng = np.random.default_rng(0)
    with closing(open_table(path)) as connection, connection:
        for index in range(600):
            is_slow, load_ = index % 2, float(rng.integers(40, 90))
            sample = structs.replace(
                SAMPLE,
                at_s=1.7e9 + index / 10,
                backend=f"vllm-{is_slow}[cpu]",
                load=load_,
                num_running=load_,
                ttft_s=float(0.03 * load_ * (1 + is_slow) * rng.lognormal(0, 0.1)),
                estimate=ExpectedWait(turns_s=0.02 * load_ * (1 + is_slow)),
            )
            connection.execute(INSERT, row_of(sample))
        connection.execute("INSERT INTO samples (at_s) VALUES (1.7e9)")
    return path


@pytest.fixture
def options(store: Path, tmp_path: Path) -> TrainOptions:
    return TrainOptions(samples=store, out=tmp_path / "model.json", tuning_s=0.0)


def test_training_publishes_a_model_that_a_sidecar_can_load(options: TrainOptions) -> None:
    run = run_training(options)
    assert run.is_published
    assert load(options.out.read_bytes()).manifest == run.training.model_file.manifest
    assert (run.rows, run.dropped[Dropped.NOT_CLEAN]) == (601, 1)


def test_a_second_model_of_the_same_samples_does_not_pass_the_gate(options: TrainOptions) -> None:
    run_training(options)
    published = options.out.read_bytes()
    again = run_training(options)
    assert not again.is_published
    assert again.training.verdict.incumbent_version == load(published).manifest.model_version
    assert options.out.read_bytes() == published
    assert run_training(replace(options, force=True)).is_published
    assert options.out.read_bytes() != published


def test_a_file_that_is_no_model_is_no_incumbent(options: TrainOptions) -> None:
    options.out.write_text("garbage")
    assert run_training(options).is_published


def test_the_report_has_all_numbers_as_json(options: TrainOptions, tmp_path: Path) -> None:
    run = run_training(replace(options, json=tmp_path / "report.json"))
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["rows"] == 601
    assert document["dropped"]["not_clean"] == 1
    assert document["manifest"]["model_version"] == run.training.model_file.manifest.model_version
    assert document["quality"]["zones"]["medium"]["least_load"]["samples"] > 0
    assert document["is_published"] is True


def test_tuning_ends_when_its_time_is_over(options: TrainOptions) -> None:
    assert run_training(options).training.quality.tuning.tried == 1


def test_too_few_samples_leave_the_model_in_use_alone(options: TrainOptions) -> None:
    options.out.write_text("the model in use")
    with closing(open_table(options.samples)) as connection, connection:
        connection.execute("DELETE FROM samples WHERE rowid > 100")
    with pytest.raises(TrainingError, match="samples whose estimate lies in the medium zone"):
        run_training(options)
    assert options.out.read_text() == "the model in use"


def test_a_file_that_is_no_store_is_reported(options: TrainOptions, tmp_path: Path) -> None:
    with pytest.raises(SampleStoreError):
        run_training(replace(options, samples=tmp_path / "absent.db"))


def test_a_path_that_cannot_be_written_is_reported(options: TrainOptions, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="No such file"):
        run_training(replace(options, out=tmp_path / "absent" / "model.json"))


def test_the_description_says_how_good_the_model_is_and_how_good_none_would_be(options: TrainOptions) -> None:
    run = run_training(options)
    terminal = io.StringIO()
    Console(width=120, file=terminal).print(describe(run))
    lines = terminal.getvalue().splitlines()
    said = {cells[1].strip(): cells[2].strip() for line in lines if len(cells := line.split("│")) == 4}
    assert lines[0].startswith("Layer 2 would pick the faster of two backends in ")
    assert said["samples read"] == "601"
    assert said["not clean"] == "1"
    assert said["the gate"] == "accepted: better than the estimate alone"
    corrected, plain = said["mean log error, corrected / the estimate alone"].split(" / ")
    assert float(corrected) < float(plain)
    errors = run.training.quality.zones[Zone.MEDIUM][Route.MODEL].errors
    assert errors is not None
    assert any("medium" in line and f"{errors.median_relative:.1%}" in line for line in lines)


@pytest.mark.parametrize(
    ("model", "estimate", "verdict"),
    [
        (0.957, 0.948, "little to gain here"),
        (0.90, 0.95, "nothing to gain here"),
        (0.97, 0.90, "layer 2 helps here"),
        (None, 0.90, "Record longer"),
    ],
)
def test_the_first_sentence_says_whether_layer_2_would_choose_better(
    options: TrainOptions, model: float | None, estimate: float, verdict: str
) -> None:
    quality = run_training(options).training.quality
    shares = {Route.MODEL: model, Route.ESTIMATE: estimate}
    routes = {
        route: replace(each, pairwise_accuracy=shares.get(route))
        for route, each in quality.zones[Zone.MEDIUM].items()
    }
    sentence = gain_sentence(replace(quality, zones={**quality.zones, Zone.MEDIUM: routes}))
    assert verdict in sentence
    assert model is None or f"{model:.1%} of the cases, the estimate alone in {estimate:.1%}" in sentence


def test_the_end_is_the_verdict_and_the_next_command(options: TrainOptions) -> None:
    run = run_training(options)
    assert str(next_step(run, options)).endswith("Next: extproc status")
    refused = str(next_step(replace(run, is_published=False), options))
    assert f"{options.out} is as it was" in refused
    assert refused.endswith(f"extproc train --samples {options.samples} --out {options.out}")


def test_a_model_that_the_sidecar_does_not_use_yet_is_to_be_copied(
    options: TrainOptions, tmp_path: Path
) -> None:
    run, config = run_training(options), tmp_path / "extproc.yaml"
    for used, command in (
        (tmp_path / "used.json", f"cp {options.out} {tmp_path}/used.json"),
        (options.out, "extproc status"),
    ):
        config.write_text(f"backends: [{{name: a, url: 'http://a:1'}}]\nmodel: {{path: {used}}}\n")
        assert str(next_step(run, replace(options, config=config))).endswith(f"Next: {command}")


def test_the_medium_zone_begins_where_the_configuration_says_unless_an_option_does(
    options: TrainOptions, tmp_path: Path
) -> None:
    config = tmp_path / "extproc.yaml"
    config.write_text("backends: [{name: a, url: 'http://a:1'}]\nzones: {low_s: 1.2}\n")
    configured = replace(options, config=config)
    used = [
        run_training(each).training.model_file.manifest.samples.train
        for each in (configured, replace(options, low_s=1.2), replace(configured, low_s=1.0), options)
    ]
    assert used[0] == used[1] != used[2] == used[3]
    with pytest.raises(ConfigError, match="begins at 20 s"):
        run_training(replace(options, low_s=20.0))
