import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from msgspec.structs import replace

from extproc.adapters.files.sample_reading import read_samples
from extproc.adapters.files.trainer_sign import sign_path
from extproc.adapters.trainer.cursor import CHUNK_ROWS
from extproc.adapters.trainer.training_loop import Trainer
from extproc.config.stages import parse_config
from extproc.errors import TrainingError
from extproc.fleet.wait_terms import ExpectedWait
from extproc.learning.dataset import TRAINING_COLUMNS, Dropped, clean_observations
from extproc.learning.features import DEFAULT_ZONE
from extproc.learning.gate import corrected
from extproc.learning.model_file import load
from extproc.learning.predictor import Predictor
from extproc.outcomes.facts import Sample

Fleet = Callable[..., Iterator[Sample]]
SampleWith = Callable[..., Sample]
Write = Callable[..., None]
Execute = Callable[[str], None]

AT_ONCE = 0.001
"""An interval that has always passed."""


@pytest.fixture
def model_path(store: Path) -> Path:
    return store.with_name("model.json")


@pytest.fixture
def make_trainer(store: Path, model_path: Path) -> Callable[..., Trainer]:
    def make(
        should_stop: Callable[[], bool] = lambda: False,
        chunk_rows: int = CHUNK_ROWS,
        stale_after_s: float = 2.0,
        **stage: Any,
    ) -> Trainer:
        document = {
            "backends": [{"name": "vllm-0", "url": "http://127.0.0.1:1"}],
            "model": {"path": str(model_path)},
            "scrape": {"stale_after_s": stale_after_s},
            "trainer": {"tuning_s": 0.0, "interval_s": 3600.0, "min_new_samples": 50} | stage,
        }
        config = parse_config(yaml.safe_dump(document), "test.yaml")
        return Trainer(store, config, DEFAULT_ZONE, np.random.default_rng(1), should_stop, chunk_rows)

    return make


MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """The messages of the log that begin with a word."""
    caplog.set_level(logging.INFO)
    return lambda event: [message for message in caplog.messages if message.startswith(event)]


Log = Callable[[str], list[str]]


def model_at(path: Path) -> Predictor:
    return load(path.read_bytes())


def share_within_20_percent(model: Predictor, store: Path, **only: str) -> float:
    """Of the clean samples in a store."""
    observed = clean_observations(read_samples(store, TRAINING_COLUMNS))[0]
    residual = corrected(model, observed) - np.log(observed.ttft_s)
    return float((np.abs(np.expm1(residual)) <= 0.2).mean())


def halved(sample: Sample) -> Sample:
    """The same where all takes half the time, which the estimate does not know: the model is off by more."""
    assert sample.ttft_s is not None
    return replace(sample, ttft_s=sample.ttft_s / 2)


def test_the_first_model_is_published_as_soon_as_it_can_be_made(
    make_trainer: MakeTrainer, write: Write, fleet: Fleet, model_path: Path, store: Path, log: Log
) -> None:
    trainer = make_trainer()
    trainer.step()
    samples = list(fleet(400))
    write(*samples[:150])
    trainer.step()
    assert not model_path.exists()
    write(*samples[150:])
    trainer.step()
    model = model_at(model_path)
    assert model.manifest.verdict.is_accepted
    assert share_within_20_percent(model, store) > 0.9
    assert log("training_began") == ["training_began reason=no_model samples=400 drifted=none"]
    [published] = log("model_published")
    assert f"version={model.manifest.model_version} reason=no_model" in published
    assert "incumbent_error=none" in published


@pytest.mark.parametrize(("stale_after_s", "dropped"), [(2.0, 400), (3.0, 0)])
def test_signals_are_stale_when_the_configuration_says_so(
    make_trainer: MakeTrainer, write: Write, fleet: Fleet, stale_after_s: float, dropped: int
) -> None:
    write(*(replace(sample, scrape_age_s=2.5) for sample in fleet(400)))
    trainer = make_trainer(stale_after_s=stale_after_s)
    trainer.step()
    assert trainer.dropped[Dropped.STALE_SIGNALS] == dropped


def test_a_missing_store_is_logged_once(make_trainer: MakeTrainer, log: Log) -> None:
    trainer = make_trainer()
    for _ in range(5):
        assert trainer.step() is False
    [said] = log("store_unreadable")
    assert "no such file" in said


def test_a_sign_of_life_is_given_once_the_store_can_be_read(
    make_trainer: MakeTrainer, write: Write, fleet: Fleet, model_path: Path
) -> None:
    trainer = make_trainer()
    trainer.step()
    assert not sign_path(model_path).exists()
    write(*fleet(10))
    trainer.step()
    assert sign_path(model_path).exists()


def test_where_no_sign_of_life_can_be_given_it_is_logged_and_the_trainer_goes_on(
    make_trainer: MakeTrainer, write: Write, fleet: Fleet, model_path: Path, log: Log
) -> None:
    sign_path(model_path).symlink_to("absent/there")
    trainer = make_trainer()
    write(*fleet(300))
    trainer.step()
    assert len(log("trainer_sign_failed")) == 1
    assert model_at(model_path)


def test_a_challenger_that_is_no_better_is_not_published_and_not_tried_again_at_once(
    make_trainer: MakeTrainer, write: Write, fleet: Fleet, model_path: Path, model_bytes: bytes, log: Log
) -> None:
    model_path.write_bytes(model_bytes)
    write(*fleet(600, seed=2))
    trainer = make_trainer(interval_s=AT_ONCE)
    for _ in range(3):
        trainer.step()
    assert model_path.read_bytes() == model_bytes
    assert log("training_began") == ["training_began reason=schedule samples=600 drifted=none"]
    [refused] = log("model_not_published")
    assert "incumbent" in refused


def test_a_model_put_in_the_file_by_hand_is_the_incumbent(
    make_trainer: MakeTrainer, write: Write, fleet: Fleet, model_path: Path, model_bytes: bytes
) -> None:
    trainer = make_trainer(interval_s=AT_ONCE)
    model_path.write_bytes(model_bytes)
    incumbent = model_at(model_path).manifest.model_version
    write(*(halved(sample) for sample in fleet(600, seed=2)))
    trainer.step()
    verdict = model_at(model_path).manifest.verdict
    assert verdict.incumbent_version == incumbent
    assert verdict.incumbent_error is not None
    assert verdict.error < verdict.incumbent_error * 0.95


def test_a_changed_machine_brings_a_new_model_without_waiting(
    make_trainer: MakeTrainer, write: Write, fleet: Fleet, model_path: Path, model_bytes: bytes, log: Log
) -> None:
    model_path.write_bytes(model_bytes)
    version = model_at(model_path).manifest.model_version
    trainer = make_trainer()
    write(*fleet(600, version=version))
    trainer.step()
    assert not log("training_began")
    changed = [halved(each) for each in fleet(1800, version=version, start_s=1_700_000_100.0, seed=5)]
    write(*changed[:30])
    trainer.step()
    assert not log("training_began")
    write(*changed[30:])
    trainer.step()
    [began] = log("training_began reason=drift")
    assert "drifted=vllm-0,vllm-1" in began
    verdict = model_at(model_path).manifest.verdict
    assert verdict.incumbent_version == version
    assert verdict.error < 0.6 * verdict.plain_error
    trainer.step()
    assert len(log("training_began")) == 1


def poison(execute: Execute, write: Write, samples: list[Sample]) -> None:
    """Rows that no sidecar writes: by raw SQL, after 20 good ones."""
    write(*samples)
    good = "SELECT * FROM samples WHERE rowid = 1"
    faults = {
        "ttft_s": ("9e999", "-9e999", "-1.0", "0", "NULL", "1e300", "'soon'", "x'00ff'"),
        "at_s": ("NULL", "-5", "9e999", "1e300", "99999999999", "'now'"),
        "load": ("-1", "1e12", "9e999", "NULL", "'many'", "x''"),
        "kv_cache_fraction": ("1.5", "-0.1", "NULL"),
        "input_tokens": ("1e300", "-1"),
        "backend": (
            "NULL",
            "x'37'",
            "x'ff'",
            "''",
            "printf('%.*c', 100, 'x')",
            "printf('%.*c', 100000, 'x')",
        ),
        "is_clean": ("NULL", "0", "2", "'yes'"),
    }
    for column, values in faults.items():
        for value in values:
            execute(f"INSERT INTO samples {good}")
            execute(f"UPDATE samples SET {column} = {value} WHERE rowid = (SELECT max(rowid) FROM samples)")
    execute("INSERT INTO samples (at_s, backend) VALUES (1700000000.0, 'vllm-0')")
    execute("INSERT INTO samples DEFAULT VALUES")
    execute("INSERT INTO samples SELECT * FROM samples WHERE rowid <= 20")


def test_poison_is_dropped_and_counted_and_the_model_is_made_from_the_rest(
    make_trainer: MakeTrainer, write: Write, execute: Execute, fleet: Fleet, store: Path, model_path: Path,
    log: Log,
) -> None:  # fmt: skip
    good = list(fleet(400))
    trainer = make_trainer()
    poison(execute, write, good[:20])
    trainer.step()
    assert len(trainer.window.observations()) == 20
    rows = len(read_samples(store)["at_s"])
    assert trainer.dropped.total() == rows - 20
    for reason in (Dropped.BAD_TTFT, Dropped.BAD_TIME, Dropped.BAD_FEATURES, Dropped.NOT_CLEAN):
        assert trainer.dropped[reason] > 2, reason
    assert trainer.dropped[Dropped.DUPLICATE] == 20
    write(*good[20:])
    trainer.step()
    kept = trainer.window.observations()
    np.testing.assert_array_equal(kept.ttft_s, [sample.ttft_s for sample in good])
    assert share_within_20_percent(model_at(model_path), store) > 0.9
    assert f"bad_ttft={trainer.dropped[Dropped.BAD_TTFT]}" in log("samples_dropped")[0]


def test_samples_written_twice_are_one_even_if_they_are_read_apart(
    make_trainer: MakeTrainer, write: Write, fleet: Fleet
) -> None:
    trainer = make_trainer()
    for _ in range(3):
        write(*fleet(100))
        trainer.step()
    assert len(trainer.window.observations()) == 100
    assert trainer.window.duplicates == 200


def test_a_sample_from_the_future_is_not_the_newest_for_ever(
    make_trainer: MakeTrainer, write: Write, sample_with: SampleWith
) -> None:
    now_s = time.time()
    write(sample_with(at_s=now_s + 3600), sample_with(at_s=now_s + 5), sample_with(at_s=now_s - 5))
    trainer = make_trainer()
    trainer.step()
    assert trainer.window.observations().at_s.tolist() == [now_s - 5, now_s + 5]
    assert trainer.dropped[Dropped.BAD_TIME] == 1


def test_no_model_is_made_from_garbage_alone(
    make_trainer: MakeTrainer, write: Write, sample_with: SampleWith, model_path: Path, log: Log
) -> None:
    chance = random.Random(3)
    write(
        *(
            sample_with(
                at_s=1.7e9 + n,
                backend=chance.choice(["a", "b"]),
                load=chance.uniform(0, 1e5),
                num_running=chance.uniform(0, 1e5),
                input_tokens=chance.uniform(0, 1e8),
                ttft_s=10 ** chance.uniform(0.001, 0.999),
                estimate=ExpectedWait(turns_s=10 ** chance.uniform(0.001, 0.999)),
            )
            for n in range(400)
        )
    )
    make_trainer().step()
    assert not model_path.exists()
    [refused] = log("model_not_published")
    assert "reason=its median relative error" in refused


def test_the_trainer_survives_a_store_that_is_damaged_or_deleted(
    make_trainer: MakeTrainer, write: Write, fleet: Fleet, store: Path, model_path: Path, log: Log
) -> None:
    samples = list(fleet(400))
    trainer = make_trainer()
    write(*samples[:100])
    trainer.step()
    for path in store.parent.glob("samples.db*"):
        path.unlink()
    for garbage in (b"This is a text file.\n" * 500, os.urandom(20_000), b""):
        store.write_bytes(garbage)
        trainer.step()
        store.unlink()
        trainer.step()
    assert len(log("store_unreadable")) == 1
    write(*samples[100:])
    trainer.step()
    assert log("store_readable")
    assert len(trainer.window.observations()) == 400
    assert model_at(model_path).manifest.verdict.is_accepted


def test_a_path_that_cannot_be_written_is_logged_and_tried_again_later(
    make_trainer: MakeTrainer, write: Write, fleet: Fleet, model_path: Path, log: Log
) -> None:
    model_path.mkdir()
    trainer = make_trainer()
    write(*fleet(300))
    trainer.step()
    trainer.step()
    assert len(log("model_not_published")) == 1
    model_path.rmdir()
    write(*fleet(400, start_s=1_700_001_000.0, seed=4))
    trainer.step()
    assert model_at(model_path)


@pytest.mark.parametrize("error", [TrainingError("too few"), ValueError("nobody has thought of this")])
def test_a_run_that_fails_is_logged_and_does_not_end_the_trainer(
    make_trainer: MakeTrainer, write: Write, fleet: Fleet, model_path: Path, log: Log, error: Exception
) -> None:
    faults = [error]

    def stop_or_fail() -> bool:  # called in the midst of a run
        if faults:
            raise faults[0]
        return True

    trainer = make_trainer(stop_or_fail, tuning_s=3600.0)
    write(*fleet(250))
    for _ in range(3):
        trainer.step()
    assert len(log("training_began")) == 1
    assert len(log("model_not_published") + log("training_failed")) == 1
    faults.clear()
    write(*fleet(300, start_s=1_700_001_000.0))
    trainer.step()
    assert model_at(model_path)


def test_a_stop_ends_the_search_for_settings(
    make_trainer: MakeTrainer, write: Write, fleet: Fleet, model_path: Path
) -> None:
    asked = []

    def stop_after_some() -> bool:
        asked.append(None)
        return len(asked) > 3

    write(*fleet(250))
    make_trainer(stop_after_some, tuning_s=3600.0).step()
    assert len(asked) == 4
    assert model_at(model_path)


def test_a_long_store_is_read_to_its_end_before_anything_is_made_of_it(
    make_trainer: MakeTrainer, write: Write, fleet: Fleet, log: Log
) -> None:
    write(*fleet(400))
    trainer = make_trainer(chunk_rows=150)
    assert [trainer.step() for _ in range(3)] == [True, True, False]
    assert log("training_began") == ["training_began reason=no_model samples=400 drifted=none"]


PATIENCE_S = 30.0

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(store: Path) -> Iterator[Start]:
    """Starts `extproc trainer` on a configuration with these stages."""
    started: list[subprocess.Popen[str]] = []

    def run(**stages: Any) -> subprocess.Popen[str]:
        config = store.with_name("extproc.yaml")
        document = {
            "backends": [{"name": "vllm-0", "url": "http://127.0.0.1:1"}],
            "samples": {"path": str(store)},
            "model": {"path": str(store.with_name("model.json"))},
            "trainer": {"poll_s": 60.0, "tuning_s": 600.0},
        }
        config.write_text(yaml.safe_dump(document | stages))
        command = [sys.executable, "-m", "extproc", "trainer", "--config", str(config)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], event: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if event in line:
            return
    raise AssertionError(f"it ended without {event}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_it_waits_and_it_has_the_lowest_priority(
    start: Start, number: signal.Signals
) -> None:
    process = start()
    read_until(process, "trainer_started")
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
    process.send_signal(number)
    _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "trainer_stopped" in log


def test_a_signal_ends_it_while_it_tunes(
    start: Start, write: Callable[..., None], fleet: Callable[..., Iterator[Sample]]
) -> None:
    write(*fleet(400))
    process = start()
    read_until(process, "training_began")
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "trainer_stopped" in log


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"samples": {"path": None}}, "samples.path is not set"),
        ({"zones": {"low_s": 10.0}}, "zones.low_s must be below 10"),
    ],
)
def test_an_unusable_configuration_is_refused_with_a_message(
    start: Start, stages: dict[str, Any], message: str
) -> None:
    process = start(**stages)
    _, shown = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert shown.startswith("extproc: ")
    assert message in shown
    assert "Traceback" not in shown
