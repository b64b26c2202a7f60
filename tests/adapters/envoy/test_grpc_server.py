"""The gRPC server, spoken to by grpcio's own client as Envoy would."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from extproc.adapters.envoy.grpc_server import ACCESS_LOG_SERVICE, EXT_PROC_SERVICE, GrpcServer
from extproc.adapters.envoy.health import HEALTH_SERVICE
from extproc.adapters.protos import access_log_pb2, ext_proc_pb2, health_pb2
from extproc.config import ServerConfig
from extproc.errors import StackError
from extproc.exchange.exchange import Exchange
from extproc.exchange.messages import Phase, RouteTo
from extproc.exchange.placement import Lease, Placement
from extproc.exchange.request import Request
from extproc.exchange.token_ratio import TokenRatios
from extproc.outcomes.log_entry import LogEntry

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
    """A server on a free port, a channel to it, and the books of what it placed."""

    def __init__(self, server: GrpcServer, channel: "grpc.aio.Channel", port: int) -> None:
        self.server = server
        self.port = port
        self.channel = channel
        self.in_flight = 0
        self.entries: list[LogEntry] = []

    def place(self, _: Request, phase: Phase, __: float) -> Placement:
        self.in_flight += 1
        return Placement(RouteTo(phase, "vllm-1"), Lease(self._release))

    def _release(self, _: float) -> None:
        self.in_flight -= 1

    def process(self) -> Any:
        return self.channel.stream_stream(f"/{EXT_PROC_SERVICE}/Process")()

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

    async def check(self, service: str) -> int:
        method = self.channel.unary_unary(f"/{HEALTH_SERVICE}/Check")
        request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        return health_pb2.HealthCheckResponse.FromString(await method(request)).status

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(address: str = "127.0.0.1:0") -> AsyncIterator[Served]:
    served: Served

    def new_exchange() -> Exchange:
        return Exchange(served.place, TokenRatios())

    def handle(entries: Iterable[LogEntry]) -> None:
        served.entries.extend(entries)

    config = ServerConfig.model_construct(address=address, max_message_bytes=33 << 20, drain_s=5.0)
    server = GrpcServer(config, new_exchange, handle)
    port = await server.start()
    target = address.replace("unix://", "unix:") if address.startswith("unix") else f"127.0.0.1:{port}"
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        served = Served(server, channel, port)
        try:
            yield served
        finally:
            await server.drain()


def test_headers_then_body_are_answered_and_the_slot_is_held_until_the_stream_ends() -> None:
    async def scenario() -> None:
        async with serving() as served:
            stream = await served.placed_stream()
            assert served.in_flight == 1
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() == grpc.StatusCode.OK
            await served.until(lambda: served.in_flight == 0)

    asyncio.run(scenario())


def test_a_cancelled_stream_gives_its_slot_back() -> None:
    async def scenario() -> None:
        async with serving() as served:
            stream = await served.placed_stream()
            stream.cancel()
            await served.until(lambda: served.in_flight == 0)
            assert served.server.open_streams == 0

    asyncio.run(scenario())


def test_a_lost_connection_gives_all_its_slots_back() -> None:
    async def scenario() -> None:
        async with serving() as served:
            streams = [await served.placed_stream() for _ in range(20)]
            assert served.in_flight == len(streams)
            await served.channel.close()
            await served.until(lambda: served.in_flight == 0)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "messages", [[BODY], [HEADERS, HEADERS], [HEADERS, BODY, BODY], [b"\xff\xff"], [b""]]
)
def test_what_breaks_the_protocol_ends_that_stream_only(messages: list[bytes]) -> None:
    async def scenario() -> None:
        async with serving() as served:
            stream = served.process()
            for message in messages[:-1]:
                await stream.write(message)
                await stream.read()
            await stream.write(messages[-1])
            assert await stream.code() == grpc.StatusCode.INVALID_ARGUMENT
            await served.until(lambda: served.in_flight == 0)
            assert served.server.protocol_errors == 1
            await served.placed_stream()

    asyncio.run(scenario())


def test_a_body_of_thirty_megabytes_is_taken() -> None:
    async def scenario() -> None:
        async with serving() as served:
            stream = served.process()
            await stream.write(HEADERS)
            await stream.read()
            body = ext_proc_pb2.HttpBody(body=b"x" * (30 << 20))
            await stream.write(ext_proc_pb2.ProcessingRequest(request_body=body).SerializeToString())
            assert await stream.read() is not grpc.aio.EOF

    asyncio.run(scenario())


def test_log_entries_are_handed_on_and_garbage_does_not_end_the_stream() -> None:
    message = access_log_pb2.StreamAccessLogsMessage()
    message.http_logs.log_entry.add().response.response_code.value = 200

    async def scenario() -> None:
        async with serving() as served:
            stream = served.channel.stream_unary(f"/{ACCESS_LOG_SERVICE}/StreamAccessLogs")()
            for part in (message.SerializeToString(), b"\xff\xff", message.SerializeToString()):
                await stream.write(part)
            await served.until(lambda: len(served.entries) == 2)
            assert served.server.protocol_errors == 1
            stream.cancel()

    asyncio.run(scenario())


def test_draining_ends_placed_streams_with_ok_and_reports_not_serving() -> None:
    async def scenario() -> None:
        async with serving() as served:
            watch = served.channel.unary_stream(f"/{HEALTH_SERVICE}/Watch")(b"")
            first = health_pb2.HealthCheckResponse.FromString(await watch.read())
            stream = await served.placed_stream()
            draining = asyncio.create_task(served.server.drain())
            second = health_pb2.HealthCheckResponse.FromString(await watch.read())
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() == grpc.StatusCode.OK
            await draining
            assert (first.status, second.status) == (1, 2)
            assert served.in_flight == 0

    asyncio.run(scenario())


def test_a_request_whose_body_is_under_way_is_still_placed_while_draining() -> None:
    async def scenario() -> None:
        async with serving() as served:
            stream = served.process()
            await stream.write(HEADERS)
            await stream.read()
            draining = asyncio.create_task(served.server.drain())
            await served.until(lambda: not served.server.health.is_serving)
            await stream.write(BODY)
            response = ext_proc_pb2.ProcessingResponse.FromString(await stream.read())
            assert response.HasField("request_body")
            assert await stream.code() == grpc.StatusCode.OK
            await draining

    asyncio.run(scenario())


def test_health_is_told_by_service() -> None:
    async def scenario() -> None:
        async with serving() as served:
            assert await served.check("") == health_pb2.HealthCheckResponse.SERVING
            assert await served.check(EXT_PROC_SERVICE) == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await served.check("no.such.Service")
            assert raised.value.code() == grpc.StatusCode.NOT_FOUND

    asyncio.run(scenario())


def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(f"unix://{tmp_path}/extproc.sock") as served:
            assert (await served.placed_stream()) is not None

    asyncio.run(scenario())


def test_a_taken_port_is_a_clear_error() -> None:
    async def scenario() -> None:
        async with serving() as served:
            address = f"127.0.0.1:{served.port}"
            exchange = Exchange(served.place, TokenRatios())
            await GrpcServer(ServerConfig(address=address), lambda: exchange, list).start()

    with pytest.raises(StackError, match=r"cannot listen on 127\.0\.0\.1:\d+"):
        asyncio.run(scenario())
