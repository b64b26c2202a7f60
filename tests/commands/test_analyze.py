from pathlib import Path

import pytest
import typer
from msgspec.structs import replace
from support.clean_sample import SAMPLE
from support.sample_file import write_samples
from typer.testing import CliRunner, Result

from extproc.commands.analyze import analyze
from extproc.config.stages import parse_config


@pytest.fixture
def store(tmp_path: Path) -> Path:
    samples = [
        replace(SAMPLE, at_s=1.7e9 + row, load=row % 90, ttft_s=0.3 + 0.5 * max(row % 90 - 30, 0) + row / 1e6)
        for row in range(900)
    ]
    write_samples(tmp_path / "samples.db", *samples)
    return tmp_path / "samples.db"


def invoke(*arguments: str | Path) -> Result:
    app = typer.Typer()
    app.command()(analyze)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_summary_and_a_configuration_to_paste_are_printed(store: Path) -> None:
    html = store.with_name("report.html")
    result = invoke("--samples", store, "--page", html)
    assert result.exit_code == 0
    proposal = result.stdout.partition("Proposed configuration:\n")[2].partition("Report:")[0]
    config = parse_config(f"backends: [{{name: a, url: 'http://127.0.0.1:1'}}]\n{proposal}", "stdout")
    assert config.guard.max_active == pytest.approx(33, abs=2)  # where TTFT passes 2 s
    assert "3 of 3 zones" in result.stdout
    assert html.exists()
    assert html.with_suffix(".json").exists()


def test_the_numbers_go_where_they_are_asked_to(store: Path) -> None:
    numbers = store.with_name("numbers")
    assert invoke("--samples", store, "--page", store.with_name("r.html"), "--json", numbers).exit_code == 0
    assert numbers.read_bytes().startswith(b"{")
    assert not store.with_name("r.json").exists()


def test_the_configuration_says_what_is_promised_and_where_the_medium_zone_begins(
    store: Path, tmp_path: Path
) -> None:
    (tmp_path / "extproc.yaml").write_text(
        "backends: [{name: a, url: 'http://127.0.0.1:1'}]\n"
        "guard: {max_predicted_ttft_s: 7.5}\nzones: {low_s: 0.8}\n"
    )
    html = store.with_name("report.html")
    result = invoke("--samples", store, "--page", html, "--config", tmp_path / "extproc.yaml")
    assert "TTFT below 0.8 s" in result.stdout
    assert "longer than 7.5 s is refused" in result.stdout


@pytest.mark.parametrize("extra", [("--low-s", "10"), ("--json", "same")])
def test_options_that_contradict_each_other_are_refused(extra: tuple[str, str], store: Path) -> None:
    html = store.with_name("report.html")
    name, value = extra
    result = invoke("--samples", store, "--page", html, name, html if value == "same" else value)
    assert result.exit_code != 0
    assert not html.exists()
