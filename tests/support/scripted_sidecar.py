"""The shipped envoy.yaml with a cluster file: a real Envoy between a scripted sidecar and small backends."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc
import grpc.aio
from aiohttp import web
from support.envoy_process import EnvoyProcess, StartEnvoy
from support.patience import PATIENCE_S

from extproc.adapters.envoy.access_log_wire import decode_entries
from extproc.adapters.envoy.ext_proc_wire import decode, encode
from extproc.exchange.messages import (
    BodyReceived,
    Continue,
    Event,
    HeadersReceived,
    Instruction,
    OtherReceived,
    Phase,
    RouteTo,
)
from extproc.fleet.endpoint import Endpoint
from extproc.outcomes.outcome import LogEntry, read_retry

Script = Callable[[Event], Instruction]
CHUNK = b"data: token\n\n"


def wave_through(event: Event) -> Instruction:
    match event:
        case HeadersReceived():
            return Continue(Phase.REQUEST_HEADERS)
        case BodyReceived():
            return Continue(Phase.REQUEST_BODY)
        case OtherReceived(phase):
            return Continue(phase)


def route_to(backend: str) -> Script:
    metadata = {"backend": backend, "layer": "least_load", "facts": '{"load": 1.5}'}

    def place(event: Event) -> Instruction:
        if isinstance(event, BodyReceived):
            return RouteTo(Phase.REQUEST_BODY, backend, metadata)
        if isinstance(event, HeadersReceived) and event.end_of_stream:
            return RouteTo(Phase.REQUEST_HEADERS, backend, metadata)
        return wave_through(event)

    return place


class ScriptedSidecar:
    """Answers each message by `script`, and keeps what it was sent."""

    def __init__(self) -> None:
        self.script: Script = wave_through
        self.events: list[Event] = []
        self.open_streams = 0
        self._entries: asyncio.Queue[LogEntry] = asyncio.Queue()
        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", 40 << 20)])
        services = {
            "envoy.service.ext_proc.v3.ExternalProcessor": {
                "Process": grpc.stream_stream_rpc_method_handler(self._process)
            },
            "envoy.service.accesslog.v3.AccessLogService": {
                "StreamAccessLogs": grpc.stream_unary_rpc_method_handler(self._log)
            },
        }
        self._server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items())
        )

    async def start(self) -> str:
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return f"127.0.0.1:{port}"

    async def stop(self) -> None:
        await self._server.stop(None)

    async def next_entry(self) -> LogEntry:
        return await asyncio.wait_for(self._entries.get(), PATIENCE_S)

    async def next_exchange(self) -> LogEntry:
        """The next entry that is about a whole exchange, and no second attempt."""
        while read_retry(entry := await self.next_entry()) is not None:
            pass
        return entry

    async def _process(self, messages: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        self.open_streams += 1
        try:
            async for message in messages:
                event = decode(message)
                self.events.append(event)
                yield encode(self.script(event))
        finally:
            self.open_streams -= 1

    async def _log(self, messages: AsyncIterator[bytes], _: Any) -> bytes:
        async for message in messages:
            for entry in decode_entries(message):
                self._entries.put_nowait(entry)
        return b""


@dataclass
class Backend:
    """Sends its headers at once, then `chunks` chunks, each after `gap_s`, the last when it `may_end`."""

    name: str
    status: int = 200
    chunks: int = 1
    gap_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    received: list[tuple[dict[str, str], int]] = field(default_factory=list)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_end.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request; on a WebSocket, send back each message with the own name."""
        if request.headers.get("upgrade") == "websocket":
            return await self._talk(request)
        self.received.append((dict(request.headers), len(await request.read())))
        response = web.StreamResponse(
            status=self.status, headers={"x-answered-by": self.name, **self.headers}
        )
        await response.prepare(request)
        for number in range(1, self.chunks + 1):
            if number == self.chunks:
                await self.may_end.wait()
            await asyncio.sleep(self.gap_s)
            await response.write(CHUNK)
        return response

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"{self.name}: {message.data}")
        return socket


@asynccontextmanager
async def serving(backend: Backend) -> AsyncIterator[Endpoint]:
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", backend.answer)
    runner = web.AppRunner(application, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Endpoint(backend.name, "127.0.0.1", runner.addresses[0][1])
    finally:
        await runner.cleanup()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Stack:
    """What a test works with; `addresses` are those of its backends, in order."""

    sidecar: ScriptedSidecar
    envoy: EnvoyProcess
    addresses: list[Endpoint]
    client: aiohttp.ClientSession

    async def post(self, body: bytes = b"{}", headers: dict[str, str] | None = None) -> Answer:
        return await self.request("POST", body, headers)

    async def request(
        self,
        method: str,
        body: bytes | None,
        headers: dict[str, str] | None = None,
        path: str = "/v1/completions",
    ) -> Answer:
        url = self.envoy.url + path
        data = None if body is None else io.BytesIO(body)  # bytes of many MB are warned of
        async with self.client.request(method, url, data=data, headers=headers) as response:
            names = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, names, await response.read())

    async def sent_through(self, cluster: str) -> int:
        """How many requests Envoy has sent to a host of that cluster; failing to connect is none."""
        count = await asyncio.to_thread(self.envoy.stat, f"cluster.{cluster}.upstream_rq_total")
        return int(count)

    async def replace_backends(self, *backends: Endpoint) -> None:
        await asyncio.to_thread(self.envoy.replace_backends, backends)


@asynccontextmanager
async def running(
    start_envoy: StartEnvoy, *backends: Backend, extra: tuple[Endpoint, ...] = (), **options: Any
) -> AsyncIterator[Stack]:
    """Backends, a sidecar that waves everything through, Envoy, a client; nobody serves `extra` backends."""
    async with AsyncExitStack() as exits:
        addresses = [await exits.enter_async_context(serving(backend)) for backend in backends]
        sidecar = ScriptedSidecar()
        address = await sidecar.start()
        exits.push_async_callback(sidecar.stop)
        client = await exits.enter_async_context(aiohttp.ClientSession())
        envoy = await asyncio.to_thread(start_envoy, address, [*addresses, *extra], **options)
        exits.push_async_callback(asyncio.to_thread, envoy.stop)
        yield Stack(sidecar, envoy, addresses, client)
