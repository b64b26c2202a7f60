import socket
import subprocess
import sys
from pathlib import Path

import pytest

from extproc.cli import main

Capture = pytest.CaptureFixture[str]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of the command."""
    monkeypatch.setattr(sys, "argv", ["extproc", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("extproc 0.")


COMMANDS = (
    *("up", "init", "serve", "picker", "clusters", "status"),
    *("profile", "analyze", "train", "trainer", "calibrate", "evaluate", "sim"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run(monkeypatch, command, "--help") == 0
    assert f" {command} [OPTIONS]\n" in capsys.readouterr().out
    assert run(monkeypatch, "--help") == 0
    assert f"\n  {command} " in capsys.readouterr().out


def test_python_dash_m_is_the_same_command() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "extproc", "--version"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith("extproc 0.")


def test_help_and_status_load_nothing_heavy() -> None:
    program = """
import sys
import extproc.cli
heavy = {"grpc", "numpy", "lightgbm", "aiohttp", "pydantic", "google.protobuf", "matplotlib", "scipy"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
sys.argv = ["extproc", "status", "--sidecar", "http://127.0.0.1:1"]
try:
    extproc.cli.main()
except SystemExit:
    pass
assert "extproc.commands.status_view" in sys.modules
heavy -= {"pydantic"}  # typer itself brings it to read options
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_fault_is_a_message_without_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    config = tmp_path / "extproc.yaml"
    config.write_text("gard: {}\nbackends: []")
    assert run(monkeypatch, "serve", "--config", str(config)) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(f"extproc: {config}: 2 fault(s)\n")
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_missing_configuration_is_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "serve") == 1
    assert capsys.readouterr().err.startswith("extproc: extproc.yaml: cannot be read")


@pytest.mark.parametrize("options", [(), ("--watch",)])
def test_status_without_a_sidecar_is_a_message(
    options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert run(monkeypatch, "status", "--sidecar", "http://127.0.0.1:1", *options) == 1
    assert capsys.readouterr().err.startswith("extproc: no sidecar answers at http://127.0.0.1:1: ")


def test_training_without_samples_is_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    out = tmp_path / "model.json"
    assert run(monkeypatch, "train", "--samples", str(tmp_path / "absent"), "--out", str(out)) == 1
    assert "absent" in capsys.readouterr().err
    assert not out.exists()


def test_simulated_server_that_cannot_be_is_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert run(monkeypatch, "sim", "--profile", "abacus", "--speed", "0") == 1
    error = capsys.readouterr().err
    assert "profile must be one of" in error


def test_simulated_server_on_a_taken_port_is_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(monkeypatch, "sim", "--port", str(taken.getsockname()[1])) == 1
    assert "address already in use" in capsys.readouterr().err


def test_stack_with_faulty_backends_is_a_message(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run(monkeypatch, "up", "--backends", "http://host:1, ftp://host") == 1
    error = capsys.readouterr().err
    assert "backends.1.url: " in error
    assert "backends.0" not in error


def test_port_out_of_range_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run(monkeypatch, "up", "--port", "65536") == 2
    assert "--port" in capsys.readouterr().err
