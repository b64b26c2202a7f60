import io
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from extproc.adapters.files.sample_table import insert_statement, open_table, row_of
from extproc.adapters.terminal.train_command import describe, train
from extproc.errors import SampleStoreError, TrainingError
from extproc.learning.dataset import Dropped
from extproc.learning.model_file import load
from extproc.outcomes.sample import Sample

SampleWith = Callable[..., Sample]


@pytest.fixture
def store(tmp_path: Path, sample_with: SampleWith) -> Path:
    """600 samples of two backends, one twice as slow, and one row that was never filled in."""
    path = tmp_path / "samples.db"
    rng = np.random.default_rng(0)
    with closing(open_table(path)) as connection, connection:
        for index in range(600):
            is_slow, load_ = index % 2, float(rng.integers(40, 90))
            sample = sample_with(
                at_s=1.7e9 + index / 10,
                backend=f"vllm-{is_slow}[cpu]",
                load=load_,
                num_running=load_,
                ttft_s=float(0.03 * load_ * (1 + is_slow) * rng.lognormal(0, 0.1)),
            )
            connection.execute(insert_statement(1), row_of(sample))
        connection.execute("INSERT INTO samples (at_s) VALUES (1.7e9)")
    return path


def test_training_publishes_a_model_that_a_sidecar_can_load(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.json"
    report = train(store, out, trained_at_s=1.7e9)
    assert load(out.read_bytes()).manifest == report.manifest
    assert (report.rows, report.dropped[Dropped.NOT_CLEAN]) == (601, 1)


def test_training_twice_gives_the_same_file(store: Path, tmp_path: Path) -> None:
    for name in ("first.json", "second.json"):
        train(store, tmp_path / name, trained_at_s=1.7e9)
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()


def test_too_few_samples_leave_the_model_in_use_alone(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.json"
    out.write_text("the model in use")
    with closing(open_table(store)) as connection, connection:
        connection.execute("DELETE FROM samples WHERE rowid > 100")
    with pytest.raises(TrainingError, match="100 usable samples"):
        train(store, out, trained_at_s=1.7e9)
    assert out.read_text() == "the model in use"


def test_a_store_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(SampleStoreError):
        train(tmp_path / "absent.db", tmp_path / "model.json", trained_at_s=1.7e9)


def test_a_place_that_cannot_be_written_is_told(store: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="No such file"):
        train(store, tmp_path / "absent" / "model.json", trained_at_s=1.7e9)


def test_the_description_says_how_good_the_model_is_and_how_machines_differ(
    store: Path, tmp_path: Path
) -> None:
    report = train(store, tmp_path / "model.json", trained_at_s=1.7e9)
    terminal = io.StringIO()
    Console(width=100, file=terminal).print(describe(report))
    lines = terminal.getvalue().splitlines()
    said = {cells[1].strip(): cells[2].strip() for line in lines if len(cells := line.split("│")) == 4}
    errors = report.manifest.held_out_errors
    assert said["samples read"] == "601"
    assert said["not clean"] == "1"
    assert said["median relative error"] == f"{errors.median_relative_error:.1%}"
    slow = said["TTFT of vllm-1[cpu] against the fleet's"]
    fast = said["TTFT of vllm-0[cpu] against the fleet's"]
    assert float(slow.split()[0]) / float(fast.split()[0]) == pytest.approx(2.0, rel=0.15)
