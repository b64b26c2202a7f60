"""`extproc calibrate` as a process, on a simulated server that was profiled."""

import json
import subprocess
import sys
from pathlib import Path

from support.process_stack import StartSim


def extproc(*arguments: object, status: int | None = 0) -> str:
    command = [sys.executable, "-m", "extproc", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert status is None or done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_profiled_server_gets_a_twin_that_can_be_simulated(start_sim: StartSim, tmp_path: Path) -> None:
    store, out, numbers = (tmp_path / name for name in ("load.db", "twin.json", "numbers.json"))
    url, _ = start_sim("--profile", "cpu-tiny", "--speed", "6", "--max-num-seqs", "4")
    load = ("--rates", "4,10", "--step", 2, "--passes", 1, "--output", "lognormal:16:0.5")
    extproc("profile", "--backends", url, "--samples", store, *load)
    files = ("--out", out, "--json", numbers)
    said = extproc("calibrate", "--samples", store, "--server", url, "--max-num-seqs", 4, *files)
    assert "prefill_token" in said
    assert json.loads(numbers.read_text())["agreements"][0]["requests"] == 28
    assert json.loads(out.read_text())["limits"]["kv_cache_tokens"] == 32_768
    start_sim("--profile", str(out), "--max-num-seqs", "4")


def test_a_fault_is_one_line(tmp_path: Path) -> None:
    check = ("--check", tmp_path / "absent.db")
    said = extproc("calibrate", "--profile", "cpu-tiny", "--max-num-seqs", 4, *check, status=1)
    assert said.startswith("extproc: ")
    assert said.count("\n") == 1
