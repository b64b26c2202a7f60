"""The three services on the thin transport: what becomes of a call's messages, without a task.

As in `grpc_server.py` on `grpc.aio`: an ext_proc call lives as long as its HTTP response, and its end gives
the lease back; the access log is read to its end; health is sent at once, and to watchers again at the end.
"""

import time
from collections.abc import Callable
from functools import partial

from extproc.adapters.envoy.exchange_call import ExchangeCall
from extproc.adapters.envoy.ext_proc_wire import decode, encode
from extproc.adapters.envoy.large_messages import LARGE_BYTES, LargeMessages
from extproc.adapters.envoy.services import SERVICE_UNKNOWN, EnvoyServer
from extproc.errors import ProtocolError
from extproc.exchange.exchange import Exchange
from extproc.exchange.messages import Hold, Instruction
from extproc.h2.grpc_call import Call, Handler
from extproc.h2.grpc_wire import CallError, Status


class ServiceCall(Handler):
    """One call of a service of the `server`."""

    __slots__ = ("_call", "_server")

    def __init__(self, server: EnvoyServer, call: Call) -> None:
        self._call = call
        self._server = server


class ProcessCall(ExchangeCall[Exchange, EnvoyServer]):
    """`ExternalProcessor.Process` of an Envoy of ours."""

    __slots__ = ("_unread",)

    def __init__(
        self,
        server: EnvoyServer,
        new_exchange: Callable[[], Exchange],
        large_messages: LargeMessages,
        call: Call,
    ) -> None:
        super().__init__(server, new_exchange, large_messages, call)
        self._unread = 0

    def receive(self, message: bytes) -> None:
        """Take an event and answer it with an instruction; a large one is read beside all others."""
        if len(message) >= LARGE_BYTES:
            self._unread += 1
            self._large_messages.read(len(message), partial(self._read_large, message))
        else:
            self._read(message)

    def _read_large(self, message: bytes) -> None:
        self._unread -= 1
        if self._call.is_over:
            return
        try:
            self._read(message)
        except ProtocolError as error:
            self._server.protocol_errors += 1
            self._call.finish(Status.INVALID_ARGUMENT, str(error))
        if self._is_half_closed:
            self.half_close()
        self._server.flush_soon()

    def _read(self, message: bytes) -> None:
        instruction = self._exchange.receive(decode(message), time.monotonic())
        if isinstance(instruction, Hold):
            self._exchange.then(self._answer_later)
        self._call.send(encode(instruction))
        if self._server.is_draining:
            self.drain()

    def half_close(self) -> None:
        """End the exchange: Envoy is done with it."""
        self._is_half_closed = True
        if not self._unread:
            self._call.finish()

    def drain(self) -> None:
        """Let go of a placed request, which goes on in Envoy without the sidecar."""
        if self._exchange.is_placed:
            self._call.finish()

    def end(self) -> None:
        """Free the request's capacity."""
        super().end()
        self._exchange.end(time.monotonic())

    def _answer_later(self, instruction: Instruction) -> None:
        """Answer a request that is no longer held."""
        self._call.send(encode(instruction))
        self._server.flush_soon()
        if self._server.is_draining:
            self.drain()


class AccessLogCall(ServiceCall):
    """`AccessLogService.StreamAccessLogs`: read to its end, also while draining: outcomes are to come."""

    __slots__ = ()

    def receive(self, message: bytes) -> None:
        """Take some entries."""
        self._server.take_entries(message)

    def half_close(self) -> None:
        """Send the one answer, which is empty."""
        self._call.send(b"")
        self._call.finish()


class CheckCall(ServiceCall):
    """`Health.Check`: one message, one answer."""

    __slots__ = ("_request",)

    def __init__(self, server: EnvoyServer, call: Call) -> None:
        super().__init__(server, call)
        self._request: bytes | None = None

    def receive(self, message: bytes) -> None:
        """Take the only message of the method."""
        if self._request is not None:
            raise CallError(Status.UNIMPLEMENTED, "the method takes one message")
        self._request = message

    def half_close(self) -> None:
        """Answer it."""
        if self._request is None:
            raise CallError(Status.UNIMPLEMENTED, "the method takes one message")
        answer = self._server.answer(self._request)
        if answer is None:
            self._call.finish(Status.NOT_FOUND, "no such service")
        else:
            self._call.send(answer)
            self._call.finish()


class WatchCall(ServiceCall):
    """`Health.Watch`: the state now, and when the server stops serving."""

    __slots__ = ()

    def receive(self, message: bytes) -> None:
        """Take the name of the service that is asked about."""
        answer = self._server.answer(message)
        self._call.send(SERVICE_UNKNOWN if answer is None else answer)
        if answer is None or not self._server.is_serving:
            self._call.finish()

    def drain(self) -> None:
        """Send the last state that there will be."""
        self._call.send(self._server.health())
        self._call.finish()
