"""Backends behind TLS and path prefixes, with real certificates and a real Envoy."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trustme
from support.client_load import chat
from support.guarded_server import GuardedServer, context_of
from support.process_stack import LocalStack, running

NAME = "vllm.example"


@asynccontextmanager
async def fleet(stack: LocalStack, *servers: GuardedServer, are_routable: bool = True) -> AsyncIterator[None]:
    async with AsyncExitStack() as exits:
        stack.stages["backends"] = [await exits.enter_async_context(server.serving()) for server in servers]
        stack.backends.update({server.name: server.port for server in servers if are_routable})
        await exits.enter_async_context(running(stack))
        yield


def test_servers_behind_tls_and_prefixes_are_reached(stack: LocalStack, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ca_file = {"ca_file": str(tmp_path / "ca.pem")}
    named = ca_file | {"server_name": NAME}
    servers = [
        GuardedServer("plain"),
        GuardedServer(
            "prefixed", "/team/bge-m3", settings={"api_key_file": str(tmp_path / "key")}, key="k3y"
        ),
        GuardedServer("by-address", tls=context_of(authority, "127.0.0.1"), settings=ca_file),
        GuardedServer("by-name", "/tls", context_of(authority, NAME), named),
    ]

    (tmp_path / "key").write_text("k3y\n")
    resets: list[str] = []
    for server in servers:
        server.resets = resets

    async def scenario() -> None:
        async with fleet(stack, *servers):
            state = await stack.state()
            assert all(backend["is_fresh"] for backend in state["backends"])
            for server in servers:
                answer = await stack.ask(chat(model=server.name), path="/v1/chat/completions?a=b")
                assert (answer.status, answer.body) == (200, server.name.encode())
                assert server.asked == [f"{server.prefix}/v1/chat/completions?a=b"]
            # A client can set neither the prefix nor the path that comes after it.
            own = {"x-extproc-path-prefix": "/sleep", "x-extproc-path": "/sleep"}
            await stack.ask(chat(model="plain"), headers=own)
            await stack.ask(chat(model="prefixed"), headers=own)
            assert servers[0].asked[-1] == "/v1/chat/completions"
            assert servers[1].asked[-1] == "/team/bge-m3/v1/chat/completions"
            # An adapter that is loaded now is served now.
            servers[0].models.append("new")
            assert (await stack.ask(chat(model="new"))).body == b"plain"
            assert (await stack.ask(chat(model="none has it"))).status == 404
            # A second attempt has the prefix of the server that it goes to.
            for _ in range(8):
                for server in servers:
                    server.asked.clear()
                resets.append("one")
                assert (await stack.ask(chat(model="all"))).status == 200
                assert sum(len(server.asked) for server in servers) == 2
                for server in servers:
                    assert set(server.asked) <= {f"{server.prefix}/v1/chat/completions"}, [
                        (s.name, s.asked) for s in servers
                    ]
            # Without the sidecar Envoy's own pool reaches all of them.
            for server in servers:
                server.asked.clear()
            pid = stack.sidecar.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            answers = await asyncio.gather(*(stack.ask(chat(model="all")) for _ in range(40)))
            assert {answer.status for answer in answers} == {200}
            for server in servers:
                assert set(server.asked) == {f"{server.prefix}/v1/chat/completions"}

    asyncio.run(scenario())


def test_a_certificate_of_another_name_or_authority_is_refused(stack: LocalStack, tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    named = {"ca_file": str(tmp_path / "ca.pem"), "server_name": NAME, "models": ["m"]}
    servers = [
        GuardedServer("other-name", "", context_of(authority, "another.example"), named),
        GuardedServer("other-authority", "", context_of(other, NAME), named),
    ]

    async def scenario() -> None:
        async with fleet(stack, *servers, are_routable=False):
            await stack.until(lambda state: len(state["backends"]) == 2)
            answer = await stack.ask(chat(model="m"))
            assert answer.status == 503
            assert not any(server.asked for server in servers)
            state = await stack.state()
            assert not any(backend["is_fresh"] for backend in state["backends"])

    asyncio.run(scenario())
    assert "certificate verify failed" in stack.sidecar.log_tail()
