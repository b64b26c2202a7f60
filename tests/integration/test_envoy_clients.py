"""The shipped envoy.yaml, seen by clients, in a real Envoy: open paths, packed bodies, WebSockets, errors."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from support.envoy_process import StartEnvoy
from support.patience import PATIENCE_S, until
from support.scripted_backend import ScriptedBackend
from support.scripted_sidecar import (
    CHUNK,
    Answer,
    Backend,
    Script,
    Stack,
    route_to,
    running,
    wave_through,
)

from extproc.exchange.messages import (
    BodyReceived,
    Event,
    HeadersReceived,
    Instruction,
    Phase,
    Reject,
    RouteTo,
)
from extproc.fleet.endpoint import Endpoint
from extproc.request.api import APIS

BODY = b'{"model": "m", "prompt": "%s"}' % (b"once upon a time " * 500)
OPEN_PATHS = [
    *(path for api in APIS for path in api.paths),
    "/v1/responses/resp_1",
    "/v1/responses/resp_1/cancel",
    "/v1/chat/completions/batch",
    "/v1/messages/render",
    "/v2/embed",
    "/inference/v1/generate",
    "/invocations",
    "/health",
    "/v1/models?a=/b",
]


@asynccontextmanager
async def sent(stack: Stack, request: bytes) -> AsyncIterator[asyncio.StreamReader]:
    """Send bytes to Envoy, and yield what comes back."""
    url = urlsplit(stack.envoy.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        writer.write(request)
        async with asyncio.timeout(PATIENCE_S):
            yield reader
    finally:
        writer.close()


async def get(stack: Stack, path: str) -> int:
    """Return the status of a path that is sent as it is; Envoy would take a second to close after it."""
    async with sent(stack, f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()) as reader:
        return int((await reader.readline()).split()[1])


def error_of(answer: Answer) -> dict[str, object]:
    """Return the error that an answer has in the form of both APIs."""
    assert answer.headers["content-type"] == "application/json"
    document = json.loads(answer.body)
    assert document["type"] == "error"
    error: dict[str, object] = document["error"]
    assert error["message"]
    assert error["code"] == answer.status
    return error


def test_every_inference_path_is_open(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a")) as stack:
            stack.sidecar.script = route_to("a")
            for path in OPEN_PATHS:
                assert (path, await get(stack, path)) == (path, 200)
                assert (path, await get(stack, path.partition("?")[0] + "/?a=b")) == (path, 200)

    asyncio.run(scenario())


OPERATORS_PATHS = [
    "/metrics",
    "/sleep",
    "/sleep?level=2",
    "/wake_up",
    "/collective_rpc",
    "/reset_prefix_cache",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/start_profile",
    "/server_info",
    "/docs",
    "/load",
    "/",
    "/v1",
    "/v1/models/../load_lora_adapter",
    "/v1/models/..%2f..%2fsleep",
    "/v1/models/%2e%2e/load_lora_adapter",
    "//sleep",
    "/./sleep",
    "/sleep/",
    "/%73leep",
    "/v1/chat/completions/../../../sleep",
    "/sleep?/v1/models",
    "/sleep#/v1/models",
    "/v1/responses/../../sleep",
    "/v1/responses/a%2f..%2f..%2f..%2fsleep",
    "/V1/../metrics",
    "/v1/models;/../../metrics",
]


def test_operators_paths_are_not_found_however_they_are_written(start_envoy: StartEnvoy) -> None:
    backend = Backend("a")

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            stack.sidecar.script = route_to("a")
            for path in OPERATORS_PATHS:
                assert (path, await get(stack, path)) in {(path, 404), (path, 400)}
            assert stack.sidecar.events == [], "extproc is not asked"
            await stack.sidecar.stop()
            for path in OPERATORS_PATHS:
                assert (path, await get(stack, path)) in {(path, 404), (path, 400)}
            answer = await stack.request("POST", b"{}", path="/sleep")
            assert (answer.status, error_of(answer)["type"]) == (404, "not_found_error")

    asyncio.run(scenario())
    assert backend.received == []


def packed(content: bytes, encoding: str) -> bytes:
    return (
        gzip.compress(content, 1) if encoding == "gzip" else pa.Codec("zstd").compress(content, asbytes=True)
    )


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_packed_body_is_unpacked_for_extproc_and_for_the_server(
    start_envoy: StartEnvoy, encoding: str
) -> None:
    backend = Backend("a")

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            stack.sidecar.script = route_to("a")
            answer = await stack.post(packed(BODY, encoding), {"content-encoding": encoding})
            assert answer.status == 200
            headers, body = stack.sidecar.events
            assert isinstance(headers, HeadersReceived)
            assert "content-encoding" not in headers.headers
            assert body == BodyReceived(BODY)

    asyncio.run(scenario())
    ((headers, size),) = backend.received
    assert size == len(BODY)
    assert "content-encoding" not in {name.lower() for name in headers}


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_no_more_is_held_of_a_bomb_than_of_another_request(start_envoy: StartEnvoy, encoding: str) -> None:
    """Half a gigabyte of zeros: a hundredfold of what was sent, or 32 MiB, is the most that is held of it."""
    backend = Backend("a")
    bomb = packed(b"\0" * (1 << 29), encoding)

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            stack.sidecar.script = route_to("a")
            for _ in range(3):
                await stack.post(bomb, {"content-encoding": encoding})
            bodies = [event.body for event in stack.sidecar.events if isinstance(event, BodyReceived)]
            assert all(len(body) <= min(110 * len(bomb), 32 << 20) for body in bodies)
            assert int(await asyncio.to_thread(stack.envoy.stat, "server.memory_allocated")) < 100 << 20
            assert (await stack.post(BODY)).status == 200

    asyncio.run(scenario())
    assert all(size <= 32 << 20 for _, size in backend.received)


def test_extproc_is_told_how_a_body_was_packed_and_the_server_is_not(start_envoy: StartEnvoy) -> None:
    backend = Backend("a")

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            stack.sidecar.script = route_to("a")
            await stack.post(packed(BODY, "gzip"), {"content-encoding": "gzip", "x-extproc-packed": "by me"})
            await stack.post(BODY, {"x-extproc-packed": "by me"})
            told = [event.headers for event in stack.sidecar.events if isinstance(event, HeadersReceived)]
            assert [headers.get("x-extproc-packed") for headers in told] == ["gzip", None]

    asyncio.run(scenario())
    assert all("x-extproc-packed" not in map(str.lower, headers) for headers, _ in backend.received)


def test_other_encodings_are_passed_on_as_they_are(start_envoy: StartEnvoy) -> None:
    backend = Backend("a")

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            stack.sidecar.script = route_to("a")
            await stack.post(zlib.compress(BODY), {"content-encoding": "deflate"})
            headers, body = stack.sidecar.events
            assert isinstance(headers, HeadersReceived)
            assert headers.headers["content-encoding"] == "deflate"
            assert body == BodyReceived(zlib.compress(BODY))

    asyncio.run(scenario())
    assert backend.received[0][0]["Content-Encoding"] == "deflate"


def test_a_body_that_is_not_what_its_encoding_says_is_left_to_the_server(start_envoy: StartEnvoy) -> None:
    backend = Backend("a")

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            stack.sidecar.script = route_to("a")
            for body in (b"no gzip", packed(BODY, "gzip")[:-20], b""):
                assert (await stack.post(body, {"content-encoding": "gzip"})).status == 200

    asyncio.run(scenario())
    assert len(backend.received) == 3


@pytest.mark.parametrize("path", ["/v1/realtime", "/v1/realtime/"])
def test_a_websocket_is_placed_by_its_headers(start_envoy: StartEnvoy, path: str) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a"), Backend("b")) as stack:
            stack.sidecar.script = route_to_by_headers("b")
            async with stack.client.ws_connect(f"{stack.envoy.url}{path}?model=m") as socket:
                await until(lambda: stack.sidecar.open_streams == 1)
                await socket.send_str("hello")
                assert (await socket.receive_str()) == "b: hello"
                (headers,) = stack.sidecar.events
                assert isinstance(headers, HeadersReceived)
                assert headers.headers[":path"] == f"{path}?model=m"
                assert stack.sidecar.open_streams == 1
            await until(lambda: stack.sidecar.open_streams == 0)

    asyncio.run(scenario())


def route_to_by_headers(backend: str) -> Script:
    def place(event: Event) -> Instruction:
        if isinstance(event, HeadersReceived):
            return RouteTo(Phase.REQUEST_HEADERS, backend, {"backend": backend})
        return wave_through(event)

    return place


def test_a_websocket_goes_to_the_pool_when_no_sidecar_listens(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a")) as stack:
            await stack.sidecar.stop()
            async with stack.client.ws_connect(f"{stack.envoy.url}/v1/realtime?model=m") as socket:
                await socket.send_str("hello")
                assert (await socket.receive_str()) == "a: hello"

    asyncio.run(scenario())


def test_a_server_makes_no_websocket_of_another_request(start_envoy: StartEnvoy) -> None:
    async def switch(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")

    async def scenario() -> None:
        server = ScriptedBackend()
        server.on_request = switch
        async with AsyncExitStack() as exits:
            await exits.enter_async_context(server.serving())
            liar = Endpoint("liar", "127.0.0.1", server.port)
            stack = await exits.enter_async_context(running(start_envoy, extra=(liar,)))
            stack.sidecar.script = route_to("liar")
            assert (await stack.post()).status == 502
            assert (await stack.request("GET", None)).status == 502
            assert (await stack.sidecar.next_exchange()).status == 502

    asyncio.run(scenario())


@pytest.mark.parametrize("host", ["host: x\r\n", ""])
def test_a_client_that_speaks_http_1_0_is_served(start_envoy: StartEnvoy, host: str) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a", chunks=3)) as stack:
            stack.sidecar.script = route_to("a")
            head = f"POST /v1/completions HTTP/1.0\r\n{host}content-length: {len(BODY)}\r\n\r\n"
            async with sent(stack, head.encode() + BODY) as reader:
                answer = await reader.read()
            assert answer.split()[1] == b"200"
            assert answer.endswith(CHUNK * 3)

    asyncio.run(scenario())


def test_envoys_own_errors_have_the_form_of_the_apis(start_envoy: StartEnvoy, dead_port: int) -> None:
    dead = Endpoint("dead", "127.0.0.1", dead_port)

    async def scenario() -> None:
        async with running(start_envoy, extra=(dead,)) as stack:
            large = await stack.post(b"x" * (33 << 20))
            assert (large.status, error_of(large)["type"]) == (413, "request_too_large")
            assert len(large.headers["x-request-id"]) == 36
            for script in (route_to("dead"), wave_through, route_to("nowhere")):
                stack.sidecar.script = script
                gone = await stack.post()
                assert (gone.status, error_of(gone)["type"]) == (503, "overloaded_error")
                assert gone.headers["retry-after"] == "2"
                assert "retry later" in error_of(gone)["message"]
                assert len(gone.headers["x-request-id"]) == 36
            await stack.replace_backends()
            assert error_of(await stack.post())["code"] == 503

    asyncio.run(scenario())


def test_an_answer_of_extproc_is_not_rewritten(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a")) as stack:
            for status in (200, 404, 503):
                made = Reject(
                    status, b'{"made": "here"}', {"content-type": "application/json", "retry-after": "9"}
                )
                stack.sidecar.script = lambda event, made=made: (
                    made if isinstance(event, BodyReceived) else wave_through(event)
                )
                answer = await stack.post()
                assert (answer.status, answer.body, answer.headers["retry-after"]) == (status, made.body, "9")

    asyncio.run(scenario())
