"""`extproc up` as a user runs it: a process of its own, with real Envoy, sidecar and simulated backends."""

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from support.patience import PATIENCE_S, until, wait_until
from support.ports import free_ports

PORTS = 7
MODEL = "sim-model"
SIDECAR, TRAINER = b"\0serve\0", b"\0trainer\0"
CHAT = {"model": MODEL, "stream": True, "max_tokens": 16, "messages": [{"role": "user", "content": "Hello"}]}


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # whose parent was killed is reaped by whoever is in charge of orphans


@dataclass(frozen=True, slots=True)
class Up:
    """One running `extproc up`, and the directory that stands for /tmp."""

    process: subprocess.Popen[bytes]
    base_port: int
    temporary: Path
    output_path: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.base_port}"

    @property
    def state_url(self) -> str:
        return f"http://127.0.0.1:{self.base_port + 3}/v1/state"

    def output(self) -> str:
        return self.output_path.read_text()

    def child(self, word: bytes) -> int | None:
        """One of its processes, told by a word of its command line; None while there is none."""
        for pid in children(self.process.pid):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                if word in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        return None


def options_for(base: int) -> list[str]:
    ports = ("--port", "--admin-port", "--http-port", "--sim-port")
    options = [
        text
        for option, offset in zip(ports, (0, 1, 3, 4), strict=True)
        for text in (option, str(base + offset))
    ]
    return [*options, "--grpc", f"127.0.0.1:{base + 2}"]


def run_up(directory: Path, *options: str) -> Up:
    directory.mkdir(exist_ok=True)
    temporary, output_path, base = directory / "tmp", directory / "output", free_ports(PORTS)[0]
    temporary.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "extproc", "up", *options_for(base), *options]
    with output_path.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | {"TMPDIR": str(temporary)}
        )
    return Up(process, base, temporary, output_path)


@contextmanager
def running(directory: Path, *options: str) -> Iterator[Up]:
    """A stack that is ready; it is stopped at the end, if the test has not done so."""
    up = run_up(directory, *options)
    try:
        wait_until(
            lambda: "Ctrl-C stops everything" in up.output() or up.process.poll() is not None, "the stack"
        )
        assert up.process.poll() is None, up.output()
        yield up
    finally:
        up.process.send_signal(signal.SIGINT)
        try:
            up.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            up.process.kill()
            raise


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running(tmp_path_factory.mktemp("up")) as made:
        yield made


async def ask(session: aiohttp.ClientSession, up: Up, body: dict[str, Any] = CHAT) -> tuple[int, bytes, Any]:
    async with session.post(f"{up.url}/v1/chat/completions", json=body) as response:
        return response.status, await response.read(), response.headers


def is_complete(status: int, body: bytes) -> bool:
    return status == 200 and body.count(b'"content":" token"') == 16 and body.endswith(b"data: [DONE]\n\n")


def test_streaming_request_is_answered_and_names_backend_and_layer(up: Up) -> None:
    async def scenario() -> None:
        async with aiohttp.ClientSession() as session:
            status, body, headers = await ask(session, up)
        assert is_complete(status, body)
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["x-extproc-backend"] in {"sim-1", "sim-2", "sim-3"}
        assert headers["x-extproc-layer"] == "least_load"

    asyncio.run(scenario())


def test_printed_curl_line_works(up: Up) -> None:
    (line,) = [line for line in up.output().splitlines() if "curl" in line]
    words = shlex.split(line)
    assert words[:2] == ["curl", "-iN"]
    url, body = words[2], json.loads(words[words.index("-d") + 1])

    async def scenario() -> None:
        headers = dict([words[words.index("-H") + 1].split(": ")])
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=json.dumps(body), headers=headers) as response,
        ):
            assert is_complete(response.status, await response.read())

    asyncio.run(scenario())


def test_300_requests_at_concurrency_30_all_succeed_and_reach_every_backend(up: Up) -> None:
    async def scenario() -> None:
        limit = asyncio.Semaphore(30)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one() -> str:
                async with limit:
                    status, body, headers = await ask(session, up)
                assert is_complete(status, body)
                # Where the machine stalls for a second Envoy goes around the sidecar: no header.
                return str(headers.get("x-extproc-backend"))

            backends = await asyncio.gather(*(one() for _ in range(300)))
        assert set(backends) >= {"sim-1", "sim-2", "sim-3"}

    asyncio.run(scenario())


def test_outcomes_are_recorded(up: Up) -> None:
    (store,) = up.temporary.glob("extproc-up-*/samples.sqlite")
    assert store.stat().st_size > 0


def test_status_shows_the_stack(up: Up) -> None:
    url = f"http://127.0.0.1:{up.base_port + 3}"
    shown = subprocess.run(
        [sys.executable, "-m", "extproc", "status", "--sidecar", url],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in ("sim-1", "sim-2", "sim-3", f"127.0.0.1:{up.base_port + 4}", "least_load", "low"):
        assert name in shown.stdout


def test_sidecar_that_is_killed_comes_back_and_no_request_fails(up: Up) -> None:
    killed = up.child(SIDECAR)
    assert killed is not None

    async def scenario() -> None:
        placed: list[bool] = []
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def client(is_over: asyncio.Event) -> None:
                while not is_over.is_set():
                    status, body, headers = await ask(session, up)
                    assert is_complete(status, body)
                    placed.append("x-extproc-backend" in headers)

            async def is_placed_again() -> None:
                await until(lambda: up.child(SIDECAR) not in {None, killed})
                seen = len(placed)
                await until(lambda: any(placed[seen:]))

            is_over = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                for _ in range(8):
                    tasks.create_task(client(is_over))
                await until(lambda: len(placed) >= 20)
                os.kill(killed, signal.SIGKILL)
                await is_placed_again()
                is_over.set()
        assert not all(placed)

    asyncio.run(scenario())
    assert "The sidecar was killed by SIGKILL, and is restarted in 0.5 s." in up.output()


def test_learning_stack_has_a_trainer_of_its_own_which_comes_back_when_it_is_killed(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"

    with running(tmp_path, "--learn", "--run-dir", str(run_dir)) as up:
        (shown,) = [line for line in up.output().splitlines() if line.startswith("trainer ")]
        killed = up.child(TRAINER)
        assert shown.split()[-1] == str(killed)
        assert yaml.safe_load((run_dir / "extproc.yaml").read_text())["model"]["path"] == str(
            run_dir / "model.json"
        )
        wait_until(lambda: "trainer_started" in (run_dir / "trainer.log").read_text(), "the trainer")
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: up.child(TRAINER) not in {None, killed}, "the next trainer")
        assert "The trainer was killed by SIGKILL, and is restarted in 0.5 s." in up.output()
        pids = children(up.process.pid)
        assert len(pids) == 6
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(PATIENCE_S) == 0
        assert not [pid for pid in pids if is_alive(pid)]


def test_nothing_survives_when_up_itself_is_killed(tmp_path: Path) -> None:
    with running(tmp_path) as up:
        pids = children(up.process.pid)
        assert pids
        up.process.kill()
        wait_until(lambda: not [pid for pid in pids if is_alive(pid)], "the children's end")


def test_it_can_be_stopped_before_it_is_ready(tmp_path: Path) -> None:
    up = run_up(tmp_path)
    wait_until(lambda: "Starting" in up.output() and children(up.process.pid), "the first process")
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(PATIENCE_S) == 0
    assert "curl" not in up.output()
    assert not list(up.temporary.iterdir())


def test_killed_backend_is_reported_and_replaced_by_the_others_and_ctrl_c_leaves_nothing(
    tmp_path: Path,
) -> None:
    async def scenario(up: Up) -> None:
        async with aiohttp.ClientSession() as session:
            answers = await asyncio.gather(*(ask(session, up) for _ in range(20)))
        assert all(is_complete(status, body) for status, body, _ in answers)

    with running(tmp_path) as up:
        assert len(children(up.process.pid)) == 5
        sim = up.child(b"\0sim\0")
        assert sim is not None
        os.kill(sim, signal.SIGKILL)
        wait_until(lambda: "To bring it back: " in up.output(), "the report")
        assert "was killed by SIGKILL" in up.output()
        asyncio.run(scenario(up))

        pids = children(up.process.pid)
        assert list(up.temporary.iterdir())
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(PATIENCE_S) == 0
        assert not [pid for pid in pids if is_alive(pid)]
        assert not list(up.temporary.iterdir())


def test_taken_ports_are_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = run_up(tmp_path, "--port", str(port), "--http-port", str(port))
        assert up.process.wait(PATIENCE_S) == 1
    assert up.output().splitlines() == [
        f"extproc: port {port} on 127.0.0.1 (Envoy, for clients) cannot be used: Address already in use; "
        "--port chooses another",
        f"port {port} on 127.0.0.1 (the sidecar's HTTP) cannot be used: Address already in use; "
        "--http-port chooses another",
    ]
    assert not list(up.temporary.iterdir())


def test_policy_file_and_run_directory_are_used_and_an_envoy_that_ends_stops_everything(
    tmp_path: Path,
) -> None:
    policy, run_dir = tmp_path / "policy.yaml", tmp_path / "run"
    policy.write_text("guard: {max_active: 1}\nserver: {address: '127.0.0.1:1', drain_s: 1}\n")
    with running(tmp_path, "--config", str(policy), "--run-dir", str(run_dir)) as up:

        async def scenario() -> None:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                body = CHAT | {"max_tokens": 100}
                answers = await asyncio.gather(*(ask(session, up, body) for _ in range(10)))
            statuses = sorted(status for status, _, _ in answers)
            assert statuses == [200] * 3 + [503] * 7

        asyncio.run(scenario())
        pids = children(up.process.pid)
        envoy = up.child(b"envoy.yaml")
        assert envoy is not None
        os.kill(envoy, signal.SIGKILL)
        assert up.process.wait(PATIENCE_S) == 1
        assert "extproc: envoy was killed by SIGKILL" in up.output()
        assert not [pid for pid in pids if is_alive(pid)]
    assert {path.name for path in run_dir.iterdir()} >= {
        *("extproc.yaml", "envoy.yaml", "cds.json", "samples.sqlite"),
        *("sidecar.log", "envoy.log", "sim-1.log", "sim-2.log", "sim-3.log"),
    }
    assert not list(up.temporary.iterdir())


def test_given_backends_are_used_and_not_stopped(tmp_path: Path, up: Up) -> None:
    urls = [f"http://127.0.0.1:{up.base_port + offset}" for offset in (4, 5)]
    with running(tmp_path, "--backends", ",".join(urls)) as other:
        assert len(children(other.process.pid)) == 2

        async def scenario() -> None:
            async with aiohttp.ClientSession() as session:
                status, body, headers = await ask(session, other)
            assert is_complete(status, body)
            assert headers["x-extproc-backend"] in {"vllm-1", "vllm-2"}

        asyncio.run(scenario())
    assert len(children(up.process.pid)) == 5


def test_sidecar_that_cannot_start_is_reported_with_its_log(tmp_path: Path) -> None:
    up = run_up(tmp_path, "--samples", str(tmp_path / "no such directory" / "samples.sqlite"))
    assert up.process.wait(PATIENCE_S) == 1
    assert "extproc: sidecar ended with status 1. The end of its log:" in up.output()
    assert "no such directory" in up.output()
    assert not list(up.temporary.iterdir())
