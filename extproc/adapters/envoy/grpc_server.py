"""The gRPC server that Envoy talks to: ext_proc, access log and health, on one port or unix socket.

A thin shell around `exchange/` on `grpc.aio`: bytes in, one event, one instruction, bytes out. A stream of
ext_proc lives as long as its HTTP response, and its end gives the lease back. When draining, streams whose
request has been placed are ended with OK, and Envoy lets those requests go on without us.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
import grpc.aio

from extproc.adapters.envoy.ext_proc_wire import decode, encode
from extproc.adapters.envoy.services import (
    ACCESS_LOG_SERVICE,
    EXT_PROC_SERVICE,
    HEALTH_SERVICE,
    SERVICE_UNKNOWN,
    EnvoyServer,
)
from extproc.config.stages import ServerConfig
from extproc.errors import ProtocolError, StackError
from extproc.exchange.exchange import Exchange
from extproc.exchange.messages import Hold, Instruction
from extproc.outcomes.outcome import LogEntry

_MAX_STREAMS = 2**31 - 1  # every request in flight holds one


class GrpcServer(EnvoyServer):
    """The server of `transport: grpcio`."""

    def __init__(
        self,
        config: ServerConfig,
        new_exchange: Callable[[], Exchange],
        handle_entries: Callable[[Iterable[LogEntry]], None],
    ) -> None:
        super().__init__(config, handle_entries)
        self._new_exchange = new_exchange
        self._stopped = asyncio.Event()
        self._placed: set[asyncio.Task[None] | None] = set()
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", config.max_message_bytes),
                ("grpc.max_concurrent_streams", _MAX_STREAMS),
                ("grpc.so_reuseport", 0),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
            ]
        )
        health = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        ext_proc = {"Process": grpc.stream_stream_rpc_method_handler(self._process)}
        access_log = {"StreamAccessLogs": grpc.stream_unary_rpc_method_handler(self._access_logs)}
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(EXT_PROC_SERVICE, ext_proc),
                grpc.method_handlers_generic_handler(ACCESS_LOG_SERVICE, access_log),
                grpc.method_handlers_generic_handler(HEALTH_SERVICE, health),
            )
        )

    async def start(self) -> int:
        """Listen, and report SERVING. Returns the port, 0 for a unix socket; StackError if it is taken."""
        try:
            port: int = self._server.add_insecure_port(self._config.address.replace("unix://", "unix:"))
        except RuntimeError as error:
            raise StackError(f"gRPC server: cannot listen on {self._config.address}: {error}") from error
        await self._server.start()
        self.is_serving = True
        return 0 if self._config.address.startswith("unix:") else port

    async def drain(self) -> None:
        """Report NOT_SERVING, end the streams cleanly, then stop; takes at most `drain_s`."""
        self.is_draining = True
        self.is_serving = False
        self._stopped.set()
        for task in self._placed:
            if task is not None:
                task.cancel()
        await self._server.stop(self._config.drain_s)
        self.log.handle_all()

    async def _process(self, _: object, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        exchange = self._new_exchange()
        self.open_streams += 1
        try:
            await self._converse(exchange, context)
        except asyncio.CancelledError:
            if not self.is_draining:
                raise
        except ProtocolError as error:
            self._refused(error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            self.open_streams -= 1
            exchange.end(time.monotonic())

    async def _converse(self, exchange: Exchange, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        task = asyncio.current_task()
        reading: asyncio.Future[bytes] | None = None
        try:
            while (message := await (reading or context.read())) is not grpc.aio.EOF:
                reading = None
                instruction = exchange.receive(decode(message), time.monotonic())
                if isinstance(instruction, Hold):
                    reading = asyncio.ensure_future(context.read())
                    later = await _held(exchange, instruction, context, reading)
                    if later is None:
                        continue
                    instruction = later
                await context.write(encode(instruction))
                if exchange.is_placed:
                    if self.is_draining:
                        return
                    self._placed.add(task)
        finally:
            self._placed.discard(task)
            if reading is not None:
                reading.cancel()

    async def _access_logs(
        self, messages: AsyncIterator[bytes], _: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> bytes:
        async for message in messages:
            self.take_entries(message)
        return b""

    async def _check(self, message: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        answer = self.answer(message)
        if answer is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return answer or b""

    async def _watch(self, message: bytes, _: object) -> AsyncIterator[bytes]:
        """Answer at once, and again when the server stops serving."""
        answer = self.answer(message)
        if answer is None:
            yield SERVICE_UNKNOWN
            return
        was_serving = self.is_serving
        yield answer
        if was_serving:
            await self._stopped.wait()
            yield self.health()


async def _held(
    exchange: Exchange,
    hold: Hold,
    context: "grpc.aio.ServicerContext[bytes, bytes]",
    reading: "asyncio.Future[bytes]",
) -> Instruction | None:
    """Ask Envoy for patience, and wait for the answer; None where Envoy has something to say before."""
    answer: asyncio.Future[Instruction] = asyncio.get_running_loop().create_future()
    exchange.then(answer.set_result)
    await context.write(encode(hold))
    either: tuple[asyncio.Future[Any], ...] = (answer, reading)
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    return answer.result() if answer.done() else None
