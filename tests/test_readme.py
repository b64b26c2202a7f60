"""README stays short, and its first steps and figures are those of the project."""

import re

from support.documents import README, extproc_calls, shell_lines
from support.reference import ROOT

TEXT = README.read_text()


def test_the_readme_is_read_in_some_minutes() -> None:
    assert len(TEXT.split()) <= 1000


def test_the_first_two_commands_start_the_stack_and_ask_it() -> None:
    first, second, *_ = shell_lines(TEXT)
    assert first == "make up"
    assert second.startswith("curl -iN http://127.0.0.1:8080/v1/chat/completions")


def test_sidecar_and_envoy_are_started_with_the_files_that_init_writes() -> None:
    (init,) = [call for call in extproc_calls(TEXT) if call[0] == "init" and len(call) > 1]
    directory = init[init.index("--dir") + 1]
    lines = shell_lines(TEXT)
    assert f"extproc serve --config {directory}/extproc.yaml" in lines
    assert f"envoy -c {directory}/envoy.yaml" in {line.rpartition("/bin/")[2] for line in lines}


def test_the_ports_are_those_of_envoy_and_of_the_defaults() -> None:
    ports = set(re.findall(r"^\| (\d{4}) \|", TEXT, re.MULTILINE))
    files = ((ROOT / name).read_text() for name in ("envoy/envoy.yaml", "extproc.example.yaml"))
    text = "\n".join(files)
    assert len(ports) == 4
    assert [port for port in ports if f"port_value: {port}" not in text and f":{port}" not in text] == []


def test_the_figures_are_those_of_the_report() -> None:
    results = (ROOT / "benchmarks" / "README.md").read_text()
    (row,) = re.findall(r"^\| mixed 0\.95 \| (\d.+)$", results, re.MULTILINE)[:1]
    figures = re.findall(r"\b\d+\.\d{2} s\b", TEXT)
    assert len(figures) == 3
    assert [figure for figure in figures if figure not in row] == []
