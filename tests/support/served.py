"""A server of either transport, on a free port, and what it did; for tests that speak to it as Envoy does."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from support.build import CountedHeldLease, CountedLease

from extproc.adapters.envoy.grpc_server import GrpcServer
from extproc.adapters.envoy.services import EXT_PROC_SERVICE
from extproc.adapters.envoy.thin_server import ThinServer
from extproc.adapters.protos import ext_proc_pb2, health_pb2
from extproc.app import SERVERS
from extproc.config.stages import ServerConfig
from extproc.exchange.exchange import Exchange
from extproc.exchange.messages import Continue, Hold, Phase, RouteTo
from extproc.exchange.placement import Placement
from extproc.outcomes.outcome import LogEntry
from extproc.request.request import Request
from extproc.request.token_ratio import TokenRatios

NewServer = Callable[..., ThinServer | GrpcServer]
TRANSPORTS = ("grpcio", "thin")
PROCESS = f"/{EXT_PROC_SERVICE}/Process"

HEADERS = ext_proc_pb2.ProcessingRequest(
    request_headers=ext_proc_pb2.HttpHeaders(
        headers=ext_proc_pb2.HeaderMap(
            headers=[
                ext_proc_pb2.HeaderValue(key=":path", raw_value=b"/v1/completions"),
                ext_proc_pb2.HeaderValue(key=":method", raw_value=b"POST"),
            ]
        )
    )
).SerializeToString()
BODY = ext_proc_pb2.ProcessingRequest(
    request_body=ext_proc_pb2.HttpBody(body=b'{"model":"m","prompt":"x"}', end_of_stream=True)
).SerializeToString()


class Served:
    """A server that listens, and the books of what it placed."""

    def __init__(self, config: ServerConfig, new_server: NewServer) -> None:
        self.in_flight = 0
        self.placed = 0
        self.is_full = False
        self.waiting: list[CountedHeldLease] = []
        self.entries: list[LogEntry] = []
        self.port = 0
        self.server = new_server(config, lambda: Exchange(self.place, TokenRatios()), self._handle_entries)

    def place(self, _: Request, phase: Phase, __: float) -> Placement:
        """Place every request, or hold it while `is_full`."""
        if not self.is_full:
            return self._placement(phase)
        held = CountedHeldLease(lambda _: self.waiting.remove(held))
        self.waiting.append(held)
        return Placement(Hold(30.0), held)

    def let_in(self, count: int = 1) -> None:
        """Place those who have been waiting longest."""
        for _ in range(count):
            self.waiting.pop(0).settle(self._placement(Phase.REQUEST_BODY))

    def pass_on(self) -> None:
        """Let all who wait go on without a backend."""
        while self.waiting:
            self.waiting.pop(0).settle(Placement(Continue(Phase.REQUEST_BODY)))

    def _placement(self, phase: Phase) -> Placement:
        self.placed += 1
        self.in_flight += 1
        return Placement(
            RouteTo(phase, "vllm-1", {"backend": "vllm-1", "facts": "vllm-1"}), CountedLease(self._release)
        )

    def _release(self, _: float) -> None:
        self.in_flight -= 1

    def _handle_entries(self, entries: Iterable[LogEntry]) -> None:
        self.entries.extend(entries)


class Caller:
    """grpcio's own client."""

    def __init__(self, channel: "grpc.aio.Channel") -> None:
        self.channel = channel

    def process(self, **options: Any) -> Any:
        return self.channel.stream_stream(PROCESS)(**options)

    async def placed_stream(self) -> Any:
        """A stream whose request has been placed, and which goes on."""
        stream = self.process()
        await stream.write(HEADERS)
        await stream.read()
        await stream.write(BODY)
        response = ext_proc_pb2.ProcessingResponse.FromString(await stream.read())
        mutation = response.request_body.response.header_mutation
        assert mutation.set_headers[0].header.raw_value == b"vllm-1"
        return stream

    async def held_stream(self) -> Any:
        """A stream whose request is held: Envoy has been asked for patience."""
        stream = self.process()
        await stream.write(HEADERS)
        await stream.read()
        await stream.write(BODY)
        response = ext_proc_pb2.ProcessingResponse.FromString(await stream.read())
        assert response.override_message_timeout.seconds == 30
        assert response.WhichOneof("response") is None
        return stream

    async def check(self, service: str) -> int:
        method = self.channel.unary_unary("/grpc.health.v1.Health/Check")
        request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        return health_pb2.HealthCheckResponse.FromString(await method(request)).status


@asynccontextmanager
async def listening(
    transport: str, address: str = "127.0.0.1:0", new_server: NewServer | None = None, **fields: Any
) -> AsyncIterator[Served]:
    """A server that drains in the end."""
    settings = {"max_message_bytes": 33 << 20, "drain_s": 5.0, "tls": None, **fields}
    # A configuration may not have the port 0.
    config = ServerConfig.model_construct(address=address, transport=transport, **settings)
    served = Served(config, new_server or SERVERS[transport])
    served.port = await served.server.start()
    try:
        yield served
    finally:
        await served.server.drain()


@asynccontextmanager
async def called(
    transport: str, address: str = "127.0.0.1:0", **fields: Any
) -> AsyncIterator[tuple[Served, Caller]]:
    """A server, and grpcio's client of it."""
    async with listening(transport, address, **fields) as served:
        target = (
            address.replace("unix://", "unix:") if address.startswith("unix") else f"127.0.0.1:{served.port}"
        )
        options = [("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            yield served, Caller(channel)
