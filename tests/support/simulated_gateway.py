"""A gateway in front of a real picker server and core: it plays the orders of messages that gateways send."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.json_format import ParseDict
from support.build import a_core, endpoints
from support.patience import until
from support.ports import free_port
from support.served import PROCESS

from extproc.adapters.envoy.gateway_wire import DESTINATION
from extproc.adapters.envoy.picker_server import PickerServer
from extproc.adapters.protos import ext_proc_pb2 as pb
from extproc.adapters.protos import health_pb2
from extproc.config.gateway_stage import GatewayConfig
from extproc.config.stages import ServerConfig
from extproc.exchange.gateway_exchange import GatewayExchange
from extproc.exchange.gateway_parts import GatewayParts
from extproc.exchange.request_body import CollectedBytes
from extproc.fleet.endpoint import Endpoint
from extproc.outcomes.outcome import LogEntry
from extproc.request.header_rules import USUAL
from extproc.routing.core import Core, CoreRules

BODY = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hello"}]}'
CHAT_HEADERS = {":method": "POST", ":path": "/v1/chat/completions", "content-type": "application/json"}
SSE_HEADERS = {":status": "200", "content-type": "text/event-stream"}
DUPLEX = {"request_body_mode": "FULL_DUPLEX_STREAMED", "response_body_mode": "FULL_DUPLEX_STREAMED"}


def header_map(headers: dict[str, str], *, is_raw: bool = True) -> pb.HeaderMap:
    field = "raw_value" if is_raw else "value"
    return pb.HeaderMap(
        headers=[
            pb.HeaderValue(key=name, **{field: value.encode() if is_raw else value})
            for name, value in headers.items()
        ]
    )


class Call:
    """One ext_proc call of a gateway."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    async def send(self, message: pb.ProcessingRequest) -> None:
        await self.stream.write(message.SerializeToString())

    async def headers(
        self,
        modes: dict[str, str] | None = DUPLEX,
        *,
        ends: bool = False,
        headers: dict[str, str] = CHAT_HEADERS,
        is_raw: bool = True,
        subset: Any = None,
    ) -> None:
        """The request's headers, with what the gateway says of itself."""
        content: dict[str, Any] = {} if modes is None else {"protocol_config": modes}
        if subset is not None:
            hint = {"envoy.lb.subset_hint": {f"{DESTINATION}-subset": subset}}
            content["metadata_context"] = {"filter_metadata": hint}
        message = ParseDict(content, pb.ProcessingRequest())
        message.request_headers.headers.CopyFrom(header_map(headers, is_raw=is_raw))
        message.request_headers.end_of_stream = ends
        await self.send(message)

    async def body(self, *parts: bytes, ends: bool = True) -> None:
        """The request's body in these parts; the last one ends it."""
        for number, part in enumerate(parts, 1):
            body = pb.HttpBody(body=part, end_of_stream=ends and number == len(parts))
            await self.send(pb.ProcessingRequest(request_body=body))

    async def trailers(self) -> None:
        await self.send(pb.ProcessingRequest(request_trailers=pb.HttpTrailers()))

    async def response_headers(
        self, headers: dict[str, str] = SSE_HEADERS, *, ends: bool = False, served: str | None = None
    ) -> None:
        message = pb.ProcessingRequest()
        message.response_headers.headers.CopyFrom(header_map(headers))
        message.response_headers.end_of_stream = ends
        if served is not None:
            fields = message.metadata_context.filter_metadata["envoy.lb"].fields
            fields[f"{DESTINATION}-served"].string_value = served
        await self.send(message)

    async def response_body(self, data: bytes, *, ends: bool = False) -> None:
        body = pb.HttpBody(body=data, end_of_stream=ends)
        await self.send(pb.ProcessingRequest(response_body=body))

    async def response_trailers(self) -> None:
        await self.send(pb.ProcessingRequest(response_trailers=pb.HttpTrailers()))

    async def answer(self) -> pb.ProcessingResponse | None:
        """The next answer; None where the picker has ended the call."""
        async with asyncio.timeout(20.0):
            message = await self.stream.read()
        return None if message is grpc.aio.EOF else pb.ProcessingResponse.FromString(message)

    async def picked(self) -> tuple[str, pb.ProcessingResponse]:
        """The address in the next answer, which has it in both places."""
        answer = await self.answer()
        assert answer is not None
        phase = answer.WhichOneof("response")
        assert phase in {"request_headers", "request_body"}, answer
        mutation = getattr(answer, phase).response.header_mutation
        (chosen,) = [each.header.raw_value for each in mutation.set_headers if each.header.key == DESTINATION]
        metadata = answer.dynamic_metadata.fields["envoy.lb"].struct_value.fields[DESTINATION].string_value
        assert metadata == chosen.decode()
        return metadata, answer

    async def returned_body(self) -> bytes:
        """The request's body, as it comes back up to its end."""
        data = b""
        while True:
            answer = await self.answer()
            assert answer is not None
            assert answer.WhichOneof("response") == "request_body", answer
            part = answer.request_body.response.body_mutation.streamed_response
            assert len(part.body) <= 62_000
            data += part.body
            if part.end_of_stream:
                return data

    async def placed(self, body: bytes = BODY) -> str:
        """The address for a request that is sent as most gateways do, after all of it has come back."""
        await self.headers()
        await self.body(body)
        address, _ = await self.picked()
        assert await self.returned_body() == body
        return address


class Gateway:
    """A gateway's connection to a picker; `entries` are what the picker has learned from."""

    def __init__(self, server: PickerServer, core: Core, channel: Any, port: int, health_port: int) -> None:
        self.server = server
        self.port = port
        self.core = core
        self.entries: list[LogEntry] = []
        self.health_port = health_port
        self._channel = channel

    def call(self) -> Call:
        return Call(self._channel.stream_stream(PROCESS)())

    @property
    def own(self) -> int:
        return sum(member.own + member.bodyless for member in self.core.registry.members)

    async def until_idle(self) -> None:
        turns = self.server.turns
        await until(lambda: self.own == 0 and self.server.open_streams == 0 and not turns._other)

    async def health(self, service: str) -> int:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.health_port}") as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
            return health_pb2.HealthCheckResponse.FromString(await check(request)).status


@asynccontextmanager
async def picking(
    rules: CoreRules, *, backends: int | Sequence[Endpoint] = 2, **gateway_fields: Any
) -> AsyncIterator[Gateway]:
    """A picker that serves, and a gateway that is connected to it."""
    config = GatewayConfig(**{"drain_s": 0.0, "finish_s": 5.0, **gateway_fields})
    # A configuration may not have the port 0.
    server_config = ServerConfig.model_construct(
        address="127.0.0.1:0", transport="thin", tls=None, max_message_bytes=33 << 20, drain_s=1.0
    )
    now_s = asyncio.get_running_loop().time()
    members = endpoints(backends) if isinstance(backends, int) else backends
    core = a_core(members, rules, now_s=now_s)
    collected = CollectedBytes(config.max_body_bytes, 8 * config.max_body_bytes)
    parts = GatewayParts(
        core.place, core.served_elsewhere, core.ratios, USUAL, collected, config.ends_after_request
    )
    entries: list[LogEntry] = []

    def learn(new: Any) -> None:
        for entry in new:
            entries.append(entry)
            core.learn(entry, asyncio.get_running_loop().time())

    health_port = free_port()
    server = PickerServer(
        server_config, config, f"127.0.0.1:{health_port}", partial(GatewayExchange, parts), learn
    )
    port = await server.start()
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            gateway = Gateway(server, core, channel, port, health_port)
            gateway.entries = entries
            yield gateway
        assert collected.held_bytes == 0, "bodies are let go"
    finally:
        server._gateway = config.model_copy(update={"drain_s": 0.0})  # the client's connection may linger
        await server.drain()
