"""The limits of the shipped envoy.yaml on what one client can do to the others, with a real Envoy."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import h2.connection
import h2.events
import h2.settings
import pytest
import yaml
from aiohttp import web
from support.envoy_process import EnvoyProcess, StartEnvoy
from support.patience import PATIENCE_S, until
from support.scripted_sidecar import CHUNK, Backend, Stack, route_to, running


async def said(envoy: EnvoyProcess, text: str) -> str:
    """Return the status line that Envoy answers the bytes of a request with; empty where it hangs up."""
    url = urlsplit(envoy.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(text.encode())
    line = (await asyncio.wait_for(reader.readline(), PATIENCE_S)).decode()
    writer.close()
    return line.strip()


def with_seconds(name: str, seconds: float) -> Callable[[str], str]:
    """Return what shortens one of the shipped times."""

    def shorten(bootstrap: str) -> str:
        document = yaml.safe_load(bootstrap)
        (chain,) = document["static_resources"]["listeners"][0]["filter_chains"]
        manager = chain["filters"][0]["typed_config"]
        stage = manager["common_http_protocol_options"] if name == "idle_timeout" else manager
        assert name in stage
        stage[name] = f"{seconds}s"
        return yaml.safe_dump(document, sort_keys=False)

    return shorten


def test_an_http2_connection_may_have_a_hundred_requests_in_flight(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a")) as stack:
            url = urlsplit(stack.envoy.url)
            reader, writer = await asyncio.open_connection(url.hostname, url.port)
            client = h2.connection.H2Connection()
            client.initiate_connection()
            writer.write(client.data_to_send())
            changed: list[h2.events.RemoteSettingsChanged] = []
            async with asyncio.timeout(PATIENCE_S):
                while not changed:
                    events = client.receive_data(await reader.read(65536))
                    changed = [each for each in events if isinstance(each, h2.events.RemoteSettingsChanged)]
            writer.close()
            told = changed[0].changed_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS]
            assert told.new_value == 100

    asyncio.run(scenario())


def test_a_tunnel_is_refused_at_once(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a")) as stack:
            asked = "CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: 127.0.0.1:22\r\n\r\n"
            assert await said(stack.envoy, asked) == "HTTP/1.1 403 Forbidden"
            assert stack.sidecar.open_streams == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "half", ["content-length: 100\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"]
)
def test_a_request_that_does_not_come_to_its_end_is_ended(start_envoy: StartEnvoy, half: str) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a"), edit=with_seconds("request_timeout", 0.3)) as stack:
            asked = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\n{half}"
            assert await said(stack.envoy, asked) == "HTTP/1.1 408 Request Timeout"
            await until(lambda: stack.sidecar.open_streams == 0)

    asyncio.run(scenario())


def test_an_answer_may_take_longer_than_a_request(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        backend = Backend("a", chunks=4, gap_s=0.3)
        async with running(start_envoy, backend, edit=with_seconds("request_timeout", 0.3)) as stack:
            stack.sidecar.script = route_to("a")
            assert (await stack.post()).body == CHUNK * 4

    asyncio.run(scenario())


def test_a_connection_that_says_nothing_is_closed(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a"), edit=with_seconds("idle_timeout", 0.3)) as stack:
            assert await said(stack.envoy, "") == ""

    asyncio.run(scenario())


def test_a_long_answer_is_no_idle_connection(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        backend = Backend("a", chunks=3, gap_s=0.7)
        async with running(start_envoy, backend, edit=with_seconds("idle_timeout", 0.3)) as stack:
            stack.sidecar.script = route_to("a")
            assert (await stack.post()).body == CHUNK * 3

    asyncio.run(scenario())


def test_while_bodies_fill_envoys_memory_new_requests_are_refused_and_streams_go_on(
    start_envoy: StartEnvoy,
) -> None:
    mib = 1 << 20

    def with_little_memory(bootstrap: str) -> str:
        shipped = "max_heap_size_bytes: 1610612736"
        assert shipped in bootstrap
        return bootstrap.replace(shipped, f"max_heap_size_bytes: {60 * mib}")

    async def upload(envoy: EnvoyProcess) -> asyncio.StreamWriter:
        """Send all of a large body but its end, unless it is refused before."""
        url = urlsplit(envoy.url)
        _, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(
            f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {31 * mib}\r\n\r\n".encode()
        )
        with suppress(ConnectionError):
            for _ in range(30):
                writer.write(bytes(mib))
                await writer.drain()
        return writer

    async def status_is(stack: Stack, status: int) -> None:
        asked = "GET /v1/completions HTTP/1.1\r\nhost: x\r\n\r\n"
        async with asyncio.timeout(PATIENCE_S):
            while f" {status} " not in await said(stack.envoy, asked):
                await asyncio.sleep(0.05)

    async def scenario() -> None:
        backend = Backend("a", chunks=2)
        backend.may_end.clear()
        async with running(start_envoy, backend, edit=with_little_memory) as stack:
            stack.sidecar.script = route_to("a")
            stream = asyncio.create_task(stack.post())
            await until(lambda: backend.received)
            uploads = [await upload(stack.envoy) for _ in range(3)]
            await status_is(stack, 503)
            backend.may_end.set()
            assert (await stream).body == CHUNK * 2
            for writer in uploads:
                writer.close()
            await status_is(stack, 200)

    asyncio.run(scenario())


FORM_FIELDS = b"name=model" * 13_000
COLONS = b":" * 4095 + b"\n"


@dataclass
class Commenting(Backend):
    """Sends comments, each a piece of its own, and then a token."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(100):
            await response.write(COLONS)
            await asyncio.sleep(0.005)
        await response.write(CHUNK)
        return response


def test_no_text_keeps_a_worker_busy(start_envoy: StartEnvoy) -> None:
    """What Envoy matches in bodies takes a time that grows with their length, and not with its square."""

    async def scenario() -> None:
        async with running(start_envoy, Commenting("a")) as stack:
            begun_s = stack.envoy.cpu_s()
            assert (await stack.request("POST", FORM_FIELDS, path="/metrics")).status == 404
            assert (await stack.post(FORM_FIELDS)).status == 200  # which extproc lets pass
            stack.sidecar.script = route_to("a")
            assert (await stack.post()).body.endswith(CHUNK)
            assert stack.envoy.cpu_s() - begun_s < 0.3

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/metrics?model=%ff", "/v1/models?model=%ff"])
def test_a_model_that_is_no_text_spoils_no_log(start_envoy: StartEnvoy, path: str) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a")) as stack:
            await stack.request("GET", None, path=path)
            assert (await stack.sidecar.next_entry()).status in (200, 404)
            await stack.post(b'{"model": "\xff"}')
            assert (await stack.sidecar.next_entry()).status == 200

    asyncio.run(scenario())
