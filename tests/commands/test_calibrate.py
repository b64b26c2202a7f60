import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import typer
from support.clean_sample import SAMPLE
from support.recorded_loads import SERVER, recorded
from support.sample_file import write_samples
from typer.testing import CliRunner, Result

from extproc.adapters.files.sample_table import open_table
from extproc.commands.calibrate import calibrate
from extproc.commands.calibrate_view import advice
from extproc.commands.evaluate import evaluate
from extproc.lab.engine.engine_profile import EngineProfile
from extproc.lab.simulated_vllm.vllm_options import SimOptions
from extproc.lab.twin.calibration import Fit
from extproc.lab.twin.profile_file import read_profile_file

SIZES = ("--max-num-seqs", "4", "--kv-cache-tokens", "32768", "--block-size", "32")


def invoke(*arguments: str | Path) -> Result:
    app = typer.Typer()
    app.command()(calibrate)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def store(path: Path, rates: tuple[float, ...], prompt: float, output: float, **server: float) -> Path:
    """A sample store, as `extproc profile` writes it."""
    machine: EngineProfile = replace(SERVER, **server)
    columns = recorded(rates, prompt, output, seed=len(rates), noise=0.05, server=machine)
    names = [name for name in columns if name in SAMPLE.__struct_fields__ and name != "cached_tokens"]
    samples = [
        msgspec.structs.replace(SAMPLE, **dict(zip(names, row, strict=True)))
        for row in zip(*(columns[name].tolist() for name in names), strict=True)
    ]
    write_samples(path, *samples)
    return path


def test_a_fitted_profile_predicts_another_load_and_is_a_machine_for_others(tmp_path: Path) -> None:
    fitted, other = store(tmp_path / "a.db", (0.5, 2, 3), 150, 30), store(tmp_path / "b.db", (2,), 400, 20)
    out, page, numbers = (tmp_path / name for name in ("mine.json", "page.html", "numbers.json"))
    files = ("--out", out, "--page", page, "--json", numbers)
    result = invoke("--samples", fitted, "--check", other, *SIZES, *files)
    assert result.exit_code == 0, result.output
    assert "prefill_token" in result.stdout
    assert "fitted to this" in result.stdout
    assert "within 20%" in result.stdout

    written = read_profile_file(out)
    assert written.profile.prefill_token_s == pytest.approx(SERVER.prefill_token_s, rel=0.1)
    assert (written.origin.samples, written.origin.backend) == ("a.db", "vllm-1")
    assert (written.limits.max_num_seqs, written.limits.block_size) == (4, 32)

    content = json.loads(numbers.read_text())
    assert [each["name"] for each in content["agreements"]] == ["a.db", "b.db"]
    assert content["agreements"][1]["ttft_p50_s"]["twin"] > 0
    html = page.read_text()
    assert html.count('src="data:image/png;base64,') == 4
    assert "a.db (fitted)" in html

    assert SimOptions(profile=str(out)).engine_profile() == written.profile
    app = typer.Typer()
    app.command()(evaluate)
    fleet, workload = f"2x{out}*0.5:4", "poisson:0.5x prompt=fixed:100 output=fixed:16 for=20"
    options = ["--fleet", fleet, "--workload", workload, "--policies", "random", "--seeds", "1"]
    assert CliRunner().invoke(app, options).exit_code == 0


def test_a_profile_that_is_off_ends_with_status_1(tmp_path: Path) -> None:
    slow = store(tmp_path / "slow.db", (2,), 400, 20, speed=0.6)
    result = invoke("--profile", "cpu-tiny", "--check", slow, *SIZES)
    assert result.exit_code == 1
    assert "NOT within 20%" in result.stdout


def test_a_twin_that_is_uncertain_is_to_be_recorded_for_longer_and_another_is_not() -> None:
    uncertain = Fit(SERVER, {"base_step_s": 0.05, "prefill_token_s": 0.74}, 0.2)
    assert advice(uncertain).startswith("prefill_token is uncertain by 74%: record longer")
    assert "record longer" not in advice(replace(uncertain, halves_differ={"base_step_s": 0.05}))


def test_a_load_is_named_where_it_cannot_be_used(tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    open_table(empty).close()
    result = invoke("--profile", "cpu-tiny", "--check", empty, *SIZES)
    assert result.exit_code == 1
    assert str(result.exception) == f"{empty}: there are no samples"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ((), "either --samples FILE"),
        (("--samples", "a.db", "--profile", "cpu-tiny"), "either --samples FILE"),
        (("--profile", "cpu-tiny"), "--check FILE"),
        (("--profile", "cpu-tiny", "--check", "a.db", "--out", "mine.json"), "needs --samples"),
        (("--profile", "absent", "--check", "a.db"), "profile must be one of"),
        (("--samples", "a.db"), "--server URL or --kv-cache-tokens"),
        (("--samples", "a.db", "--out", "mine.yaml", "--kv-cache-tokens", "4096"), "ends in .json"),
        (("--samples", "absent.db", "--kv-cache-tokens", "4096"), "absent.db"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(arguments: tuple[str, ...], fault: str) -> None:
    result = invoke("--max-num-seqs", "4", *arguments)
    assert result.exit_code == 1
    assert fault in str(result.exception)
