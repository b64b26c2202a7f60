"""The findings that this project comes from, again, on a simulated server in real time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.process_stack import StartSim
from support.simulated_samples import MACHINE

from extproc.adapters.files.atomic_file import write_json
from extproc.config.stages import parse_config
from extproc.errors import CalibrationError
from extproc.lab.engine.engine_profile import EngineLimits
from extproc.lab.twin.profile_file import Origin, ProfileFile

HTTP_LIMIT = 64
SERVER = ("--speed", "0.1502", "--http-limit", str(HTTP_LIMIT))
LOAD = (
    *("--rates", "0.4,1.2,2.4,3.2,3.6,3.6,4.8,10", "--step", "15", "--passes", "1"),
    *("--prompt", "lognormal:200:0.6", "--output", "lognormal:24:0.1"),
)


def extproc(*arguments: str) -> str:
    command = [sys.executable, "-m", "extproc", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout


@pytest.mark.long
def test_profile_and_analyze_find_the_limit_that_was_configured(tmp_path: Path, start_sim: StartSim) -> None:
    store, page, machine = (tmp_path / name for name in ("samples.db", "report.html", "machine.json"))
    limits = EngineLimits(MACHINE.kv_cache_tokens, http_limit=HTTP_LIMIT)
    origin = Origin("", "", 0.0, 0, 0.0, {})
    write_json(machine, ProfileFile(profile=MACHINE, limits=limits, origin=origin), CalibrationError)
    url, _ = start_sim("--profile", str(machine), *SERVER)
    extproc("profile", "--backends", url, "--samples", str(store), *LOAD)
    said = extproc("analyze", "--samples", str(store), "--page", str(page))

    assert "3 of 3 zones are there" in said
    assert "before the engine" in said
    configuration = said.split("Proposed configuration:")[1].split("Report:")[0]
    backends = "backends: [{name: a, url: 'http://127.0.0.1:1'}]\n"
    config = parse_config(backends + configuration, "the proposal")
    assert config.guard.max_active == pytest.approx(HTTP_LIMIT, rel=0.15)
    (by_load,) = [
        row
        for row in json.loads(page.with_suffix(".json").read_text())["correlations"]
        if (row["zone"], row["feature"]) == ("saturated", "load")
    ]
    assert by_load["pearson"]["r"] > 0.93
