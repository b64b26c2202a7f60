"""`extproc init` as a user runs it, and sidecar and Envoy on exactly the files that it has written."""

import asyncio
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import trustme
from aiohttp import web
from support.client_load import chat
from support.guarded_server import GuardedServer, context_of
from support.local_application import application_at
from support.patience import PATIENCE_S
from support.ports import free_port, free_ports
from typer.testing import CliRunner

from extproc.cli import app
from extproc.errors import ExtprocError

EXTPROC = (sys.executable, "-P", "-m", "extproc")
KEY = "k3y"


def init(*options: object) -> tuple[str, str]:
    """The output of `extproc init`, and its error."""
    result = CliRunner().invoke(app, ["init", *map(str, options)])
    assert result.exception is None or isinstance(result.exception, ExtprocError)
    return result.output, str(result.exception or "")


@asynccontextmanager
async def started(command: Sequence[str]) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def until_models_are_known(session: aiohttp.ClientSession, state_url: str) -> None:
    """A sidecar that has just begun lets Envoy choose."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            async with session.get(state_url) as response:
                backends = (await response.json())["backends"]
            if all(each["is_routable"] and each["models"] for each in backends):
                return
            await asyncio.sleep(0.05)


async def until_ready(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


def test_sidecar_and_envoy_serve_with_the_files_as_written(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "key").write_text(KEY)
    servers = [
        GuardedServer("plain"),
        GuardedServer("guarded", "/team/a", context_of(authority, "127.0.0.1"), key=KEY),
    ]
    port, admin_port, http_port = free_ports(3)
    directory = tmp_path / "it's here"
    options = ("--port", port, "--admin-port", admin_port, "--http-port", http_port, "--dir", directory)
    guards = ("--api-key-file", tmp_path / "key", "--ca-file", tmp_path / "ca.pem")

    async def scenario() -> None:
        async with AsyncExitStack() as exits:
            urls = [(await exits.enter_async_context(server.serving()))["url"] for server in servers]
            grpc = f"unix://{tmp_path}/grpc.sock"
            given = ("--backends", ",".join(urls), *options, *guards, "--grpc", grpc)
            out, error = await asyncio.to_thread(init, *given)
            assert error == ""
            assert f"{urls[1]}  serves all, guarded\n" in out
            printed = re.findall(r"^  (\S*(?:extproc serve|envoy -c) .+)", out, re.MULTILINE)
            serve, envoy = map(shlex.split, printed)
            session = await exits.enter_async_context(aiohttp.ClientSession())
            await exits.enter_async_context(started([*EXTPROC, *serve[1:]]))
            await until_ready(session, f"http://127.0.0.1:{http_port}/readyz")
            await exits.enter_async_context(started([*envoy, "--concurrency", "1", "--disable-hot-restart"]))
            await until_ready(session, f"http://127.0.0.1:{admin_port}/ready")
            await until_models_are_known(session, f"http://127.0.0.1:{http_port}/v1/state")
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            for server in servers:
                async with session.post(url, json=chat(model=server.name)) as response:
                    assert (response.status, await response.text()) == (200, server.name)
                assert server.asked == [f"{server.prefix}/v1/chat/completions"]

    asyncio.run(scenario())
    assert "# The vLLM servers." in (directory / "extproc.yaml").read_text()
    assert "# Only these paths are open to clients" in (directory / "envoy.yaml").read_text()


def test_a_server_that_cannot_be_used_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    closed = free_port()

    async def another(_: web.Request) -> web.Response:
        return web.Response(text="Hello")

    async def scenario() -> None:
        async with AsyncExitStack() as exits:
            locked = GuardedServer("locked", key=KEY)
            urls = [(await exits.enter_async_context(locked.serving()))["url"]]
            port = await exits.enter_async_context(application_at([web.get("/v1/models", another)]))
            urls += [f"http://127.0.0.1:{port}", f"http://127.0.0.1:{closed}"]
            options = ("--backends", ",".join(urls), "--dir", tmp_path / "new")
            out, error = await asyncio.to_thread(init, *options)
            said = dict(re.findall(r"^vllm-\d  (\S+)  CANNOT BE USED: (.+)$", out, re.M))
            assert said.keys() == set(urls)
            assert said[urls[0]] == "status 401 of /v1/models. It asks for an API key: --api-key-file FILE."
            assert said[urls[1]].startswith("the answer to /v1/models is no list of models.")
            assert said[urls[2]].endswith("Is vLLM running there, on this port?")
            assert error.startswith("3 of 3 servers cannot be used, so nothing was written")
            assert not (tmp_path / "new").exists()
            await asyncio.to_thread(init, *options, "--unchecked")
            assert (tmp_path / "new" / "envoy.yaml").exists()

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["extproc.yaml", "envoy.yaml"])
def test_a_file_that_is_there_is_replaced_only_on_demand(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    options = ("--backends", f"http://127.0.0.1:{free_port()}", "--dir", tmp_path, "--unchecked")
    _, error = init(*options)
    assert (tmp_path / name).read_text() == "mine"
    assert error.startswith(f"already there: {tmp_path / name}. Give another --dir, or --overwrite")
    assert init(*options, "--overwrite")[1] == ""
    assert (tmp_path / name).read_text() != "mine"


def test_urls_that_no_configuration_takes_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    out, error = init("--backends", "http://a/v1,ftp://b", "--dir", tmp_path / "new")
    assert out == ""
    assert "backends.0.url: " in error
    assert "backends.1.url: " in error
    assert not (tmp_path / "new").exists()
