"""The way of docs/deploy-gateway.md without Kubernetes, typed as it stands there."""

import asyncio
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from support.manifests import ROOT
from support.odd_server import SWITCHES, OddServer
from support.patience import PATIENCE_S
from support.ports import free_port

BIN = Path(sys.executable).parent
SECTION = (ROOT / "docs" / "deploy-gateway.md").read_text().partition("## Outside Kubernetes")[2]
BLOCKS = [
    textwrap.dedent(block)
    for block in re.findall(
        r"^ *```(?:sh|yaml)\n(.*?)^ *```$", SECTION.partition("\n## ")[0], re.DOTALL | re.MULTILINE
    )
]


@contextmanager
def started(command: str, directory: Path, *more: str) -> Iterator[None]:
    """A program of the documentation, from our environment."""
    program, *arguments = shlex.split(command)
    with (directory / f"{program}.log").open("wb") as log:
        process = subprocess.Popen([BIN / program, *arguments, *more], cwd=directory, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


async def answer_to(curl: str) -> bytes:
    """Return what a command prints: the head of an answer, and its body."""
    process = await asyncio.create_subprocess_exec(*shlex.split(curl), "-s", stdout=subprocess.PIPE)
    answer, _ = await process.communicate()
    return answer


async def answered_by(curl: str, names: set[str]) -> None:
    """Wait until an answer comes from one of these servers."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await answer_to(curl)
            assert b"x-envoy" not in answer, "the server's"
            found = re.search(rb"^x-extproc-backend: (\S+)", answer, re.MULTILINE)
            if found is not None and found[1].decode() in names and b" 200 " in answer.partition(b"\n")[0]:
                return
            await asyncio.sleep(0.1)


def write_envoy_config(directory: Path, sed: str, ports: dict[str, str]) -> None:
    """What the command makes of the shipped configuration, with other ports than the usual ones."""
    (directory / "deploy").symlink_to(ROOT / "deploy")
    subprocess.run(["sh", "-ec", sed], cwd=directory, check=True)
    path = directory / "envoy.yaml"
    text = path.read_text()
    for usual, port in ports.items():
        text = text.replace(f"port_value: {usual}", f"port_value: {port}")
    path.write_text(text)


def test_a_picker_with_llm_ds_endpoints_file_serves_behind_the_standalone_envoy(tmp_path: Path) -> None:
    listed, settings, install_and_pick, sed_and_envoy, curl = BLOCKS
    pick = install_and_pick.splitlines()[-1]
    sed, envoy = sed_and_envoy.splitlines()
    ports = {usual: str(free_port()) for usual in ("8080", "9901", "9002")}
    write_envoy_config(tmp_path, sed, ports)
    (tmp_path / "extproc.yaml").write_text(settings)
    others = ["--grpc-health-port", str(free_port()), "--metrics-port", str(free_port())]
    asked = curl.replace(":8080", f":{ports['8080']}").replace("Qwen/Qwen3-8B", "odd").replace("\\\n", " ")

    async def scenario() -> None:
        async with AsyncExitStack() as servers:
            endpoints = listed
            for address in ("10.0.0.11", "10.0.0.12"):
                server = await servers.enter_async_context(OddServer().serving())
                endpoints = endpoints.replace(f'{address}, port: "8000"', f'127.0.0.1, port: "{server.port}"')
            path = tmp_path / "endpoints.yaml"
            path.write_text(endpoints)
            picking = started(pick, tmp_path, "--grpc-port", ports["9002"], *others)
            with picking, started(envoy, tmp_path, "--use-dynamic-base-id"):
                await answered_by(asked, {"vllm-1", "vllm-2"})
                assert b" 502 " in (await answer_to(asked.replace("Hello", SWITCHES))).partition(b"\n")[0]
                path.write_text("\n".join(line for line in endpoints.splitlines() if "vllm-1" not in line))
                await answered_by(asked, {"vllm-2"})

    asyncio.run(scenario())
