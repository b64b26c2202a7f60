"""Either transport behind a real Envoy, on every kind of address, and over mutual TLS."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
import uvloop
import yaml
from aiohttp import web
from support.envoy_process import EnvoyProcess, StartEnvoy
from support.patience import until
from support.served import TRANSPORTS, Served, listening

from extproc.config.stages import TlsConfig
from extproc.fleet.endpoint import Endpoint

REQUESTS, CONCURRENCY = 200, 32
ADDRESSES: dict[str, Callable[[Path], str]] = {
    "tcp": lambda _: "127.0.0.1:0",
    "unix": lambda directory: f"unix://{directory}/extproc.sock",
}


class Backend:
    """Answers at once, or when it is told to."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/{path:.*}", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield Endpoint("vllm-1", "127.0.0.1", runner.addresses[0][1])
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        size = len(await request.read())
        await self.may_answer.wait()
        return web.json_response({"size": size})


@asynccontextmanager
async def behind_envoy(
    start_envoy: StartEnvoy, backend: Backend, served: Served, address: str, **options: Any
) -> AsyncIterator[tuple[EnvoyProcess, aiohttp.ClientSession]]:
    target = address if address.startswith("unix") else f"127.0.0.1:{served.port}"
    async with backend.serving() as upstream, aiohttp.ClientSession() as session:
        yield await asyncio.to_thread(start_envoy, target, [upstream], **options), session


async def ask(envoy: EnvoyProcess, session: aiohttp.ClientSession, size: int = 100) -> tuple[int, str | None]:
    """The status, and the backend that was chosen, if one was."""
    async with session.post(envoy.url + "/v1/completions", data=io.BytesIO(b"x" * size)) as response:
        assert (await response.json())["size"] == size
        return response.status, response.headers.get("x-extproc-backend")


@pytest.mark.parametrize("kind", ADDRESSES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_request_is_placed_and_logged_and_leaves_nothing(
    start_envoy: StartEnvoy, tmp_path: Path, transport: str, kind: str
) -> None:
    address = ADDRESSES[kind](tmp_path)

    async def scenario() -> None:
        async with (
            listening(transport, address, drain_s=1.0) as served,
            behind_envoy(start_envoy, Backend(), served, address) as (envoy, session),
        ):
            places = asyncio.Semaphore(CONCURRENCY)

            async def one(number: int) -> tuple[int, str | None]:
                async with places:
                    return await ask(envoy, session, size=number)

            answers = await asyncio.gather(*map(one, range(1, REQUESTS + 1)))
            assert set(answers) == {(200, "vllm-1")}
            await until(lambda: len(served.entries) == REQUESTS and served.in_flight == 0)
            assert all(entry.metadata["facts"] == "vllm-1" for entry in served.entries)
            assert (served.placed, served.server.protocol_errors) == (REQUESTS, 0)

    uvloop.run(scenario())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_body_of_thirty_megabytes_is_placed(start_envoy: StartEnvoy, transport: str) -> None:
    async def scenario() -> None:
        async with (
            listening(transport, drain_s=1.0) as served,
            behind_envoy(start_envoy, Backend(), served, "") as (envoy, session),
        ):
            assert await ask(envoy, session, size=30 << 20) == (200, "vllm-1")

    uvloop.run(scenario())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_requests_in_flight_outlive_the_drain_and_their_places_are_given_back(
    start_envoy: StartEnvoy, transport: str
) -> None:
    async def scenario() -> None:
        backend = Backend()
        backend.may_answer.clear()
        async with (
            listening(transport, drain_s=0.5) as served,
            behind_envoy(start_envoy, backend, served, "") as (envoy, session),
        ):
            asked = [asyncio.create_task(ask(envoy, session)) for _ in range(20)]
            await until(lambda: served.in_flight == len(asked))
            await served.server.drain()
            assert (served.in_flight, served.server.open_streams) == (0, 0)
            backend.may_answer.set()
            assert set(await asyncio.gather(*asked)) == {(200, "vllm-1")}
            assert await ask(envoy, session) == (200, None)  # nobody is asked: the pool

    uvloop.run(scenario())


def over_tls(bootstrap: str, directory: Path) -> str:
    """The bootstrap, with a certificate for Envoy's connections to the sidecar."""
    document = yaml.safe_load(bootstrap)
    (cluster,) = (one for one in document["static_resources"]["clusters"] if one["name"] == "extproc")
    files = {kind: {"filename": str(directory / f"{kind}.pem")} for kind in ("chain", "key", "authority")}
    cluster["transport_socket"] = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_certificates": [{"certificate_chain": files["chain"], "private_key": files["key"]}],
                "validation_context": {"trusted_ca": files["authority"]},
            },
        },
    }
    return yaml.safe_dump(document)


def test_envoy_is_served_over_mutual_tls(start_envoy: StartEnvoy, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    for names, prefix in (("127.0.0.1", "server-"), ("envoy", "")):
        identity = authority.issue_cert(names)
        (tmp_path / f"{prefix}chain.pem").write_bytes(identity.cert_chain_pems[0].bytes())
        identity.private_key_pem.write_to_path(tmp_path / f"{prefix}key.pem")
    tls = TlsConfig(
        cert_path=tmp_path / "server-chain.pem",
        key_path=tmp_path / "server-key.pem",
        client_ca_path=tmp_path / "authority.pem",
    )

    async def scenario() -> None:
        edit = {"edit": lambda text: over_tls(text, tmp_path)}
        async with (
            listening("thin", tls=tls, drain_s=1.0) as served,
            behind_envoy(start_envoy, Backend(), served, "", **edit) as (envoy, session),
        ):
            answers = await asyncio.gather(*(ask(envoy, session) for _ in range(50)))
            assert set(answers) == {(200, "vllm-1")}
            await until(lambda: len(served.entries) == len(answers) and served.in_flight == 0)

    uvloop.run(scenario())
