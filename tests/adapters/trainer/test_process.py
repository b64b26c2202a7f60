import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from extproc.outcomes.facts import Sample

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
        ({"trainer": {"interval": 5}}, "trainer.interval"),
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
