"""A socket for the gRPC connection: an asyncio Protocol, made for uvloop.

One read of the socket, whatever it answers, one write: nothing waits in between, and no task is made. Only
many messages at once are answered over several turns of the loop, so that all else has its turns. Its own
part is what the state machine cannot know, which is time and a peer's pace: a connection that does not begin,
one without calls for long, and a peer that sends but does not read.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from extproc.errors import ProtocolError
from extproc.h2.grpc_connection import GrpcConnection, GrpcService

ALPN_PROTOCOL = "h2"
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""As envoy.yaml has it for clients: a machine that vanishes without a word holds its places for a minute."""
_SHORTEST_BEGINNING = 24 + 9  # the preface and an empty SETTINGS frame


@dataclass(frozen=True, slots=True)
class ConnectionTimes:
    """How long a peer may take before its connection is closed, in seconds."""

    handshake_s: float = 10.0
    """Guessed: to begin, or to answer that the connection has ended."""
    idle_s: float = 3900.0
    """Without calls. Envoy itself closes such a connection after 3,600 s."""
    stall_s: float = 30.0
    """Guessed: to read again, when the buffers are full."""
    close_s: float = 1.0
    """Guessed: to take the last bytes."""


DEFAULT_TIMES = ConnectionTimes()


class GrpcProtocol(asyncio.Protocol):
    """One connection; it is in `connections` while it lasts, and `emptied` is set when the last one ends."""

    def __init__(
        self,
        service: GrpcService,
        connections: set["GrpcProtocol"],
        emptied: asyncio.Event,
        times: ConnectionTimes = DEFAULT_TIMES,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._service = service
        self._connections = connections
        self._emptied = emptied
        self._times = times
        self._grpc = GrpcConnection(service, self._call_later)
        self._received_bytes = 0
        self._begun_s = self._heard_s = time.monotonic()
        self._watch: asyncio.TimerHandle | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._next: asyncio.Handle | None = None

    @property
    def worth(self) -> tuple[bool, float]:
        """The larger one is to be kept: with open calls the older one, without any the one last heard of."""
        has_calls = bool(self._grpc.open_calls)
        return has_calls, -self._begun_s if has_calls else self._heard_s

    @property
    def is_behind(self) -> bool:
        """Whether the next turn of the loop goes on with messages that have been read."""
        return self._next is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet; over TLS only where both sides have agreed on HTTP/2."""
        self._transport = cast(asyncio.Transport, transport)
        tls = transport.get_extra_info("ssl_object")
        agreed = ALPN_PROTOCOL if tls is None else tls.selected_alpn_protocol()
        if agreed != ALPN_PROTOCOL and not (agreed is None and self._service.may_assume_h2):
            self._service.refused(ProtocolError(f"TLS without h2: {transport.get_extra_info('peername')}"))
            self._transport.abort()
            return
        _expect_life(transport)
        self._connections.add(self)
        self._watch = self._loop.call_later(self._times.handshake_s, self._expect_beginning)
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Read, answer, write."""
        self._heard_s = now_s = time.monotonic()
        self._received_bytes += len(data)
        self._grpc.receive(data, now_s)
        if self._next is None:
            self._answer()

    def _answer(self) -> None:
        is_more = self._grpc.handle_some()
        self._next = self._loop.call_soon(self._answer) if is_more else None
        self.flush()

    def flush(self) -> None:
        """Write what there is to be written."""
        if data := self._grpc.data_to_send():
            self._transport.write(data)
        if self._grpc.is_closed and not self._is_closing:
            self._is_closing = True
            if self._limit is None or self._limit.cancelled():
                self._limit = self._loop.call_later(self._times.close_s, self._transport.abort)
            self._transport.close()

    def pause_writing(self) -> None:
        """Take nothing more from a peer that does not read, until it does."""
        if not self._is_closing:
            self._transport.pause_reading()
            self._limit = self._loop.call_later(self._times.stall_s, self._transport.abort)

    def resume_writing(self) -> None:
        """Go on with a peer that reads again."""
        if not self._is_closing and self._limit is not None:
            self._limit.cancel()
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """End every call of the connection."""
        self._connections.discard(self)
        if not self._connections:
            self._emptied.set()
        for timer in (self._watch, self._limit, self._next):
            if timer is not None:
                timer.cancel()
        self._grpc.connection_lost()

    def drain(self) -> None:
        """Take no more calls, end those that are no longer needed, and close after the last one."""
        self._grpc.drain()
        self.flush()

    def finish(self) -> None:
        """End all calls, and close."""
        self._grpc.finish()
        self.flush()

    def abort(self) -> None:
        """Close at once, whatever has not been sent yet."""
        self._transport.abort()

    def _call_later(self, delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        def run() -> None:
            callback()
            self.flush()

        return self._loop.call_later(delay_s, run)

    def _expect_beginning(self) -> None:
        """Count the first bytes; the state machine ends a connection that begins wrong."""
        if self._received_bytes < _SHORTEST_BEGINNING:
            self.abort()
        else:
            self._watch = self._loop.call_later(self._times.idle_s, self._expect_calls)

    def _expect_calls(self) -> None:
        silent_s = time.monotonic() - self._heard_s
        if silent_s >= self._times.idle_s and not self._grpc.open_calls:
            self._watch = self._loop.call_later(self._times.handshake_s, self.abort)  # if no answer comes
            self.finish()
            return
        self._watch = self._loop.call_later(max(1.0, self._times.idle_s - silent_s), self._expect_calls)


def _expect_life(transport: asyncio.BaseTransport) -> None:
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):  # not every system has all of them
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
