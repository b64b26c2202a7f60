"""The gRPC calls of one connection: HTTP/2's events in, calls to their handlers out.

No I/O here: bytes go in by `receive` and come out by `data_to_send`. Nothing that a peer sends, and no fault
of a handler, ends more than the call that it belongs to, unless HTTP/2 itself has been broken.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from extproc.errors import ProtocolError
from extproc.h2.connection import ServerConnection
from extproc.h2.events import (
    ConnectionEnded,
    DataReceived,
    ErrorCode,
    Event,
    Fields,
    StreamClosed,
    StreamEnded,
    StreamOpened,
)
from extproc.h2.grpc_call import Call, NewHandler, Timer, UnfinishedMessages
from extproc.h2.grpc_wire import (
    RESPONSE_HEADERS,
    CallError,
    NotGrpcError,
    Status,
    read_head,
    refusal,
    trailers,
)
from extproc.h2.h2_limits import USUAL_LIMITS, Limits

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 16
"""Guessed: messages that are handled in one go, some 2 ms; all else that the process does waits as long."""
MAX_UNHANDLED = 1024
"""Guessed: events that may wait for a turn; they hold 16 MB at most. Beyond, they are handled at once."""

CallLater = Callable[[float, Callable[[], None]], Timer]


@dataclass(frozen=True, slots=True)
class GrpcService:
    """The services: handlers by their method's path, `/SERVICE/METHOD`; `limits` are of each connection.

    Over TLS both sides have to agree on HTTP/2, unless the peer `may_assume_h2`. `refused` gets each
    error that ended a call, or the connection, because of what had been sent on it.
    """

    methods: Mapping[str, NewHandler]
    max_message_bytes: int
    unfinished: UnfinishedMessages
    refused: Callable[[ProtocolError], None]
    limits: Limits = USUAL_LIMITS
    may_assume_h2: bool = False


class GrpcConnection:
    """One connection's calls. `call_later` is the event loop's: some calls have a deadline."""

    def __init__(self, service: GrpcService, call_later: CallLater) -> None:
        self._service = service
        self._call_later = call_later
        self._connection = ServerConnection(service.limits)
        self._calls: dict[int, Call] = {}
        self._unhandled: deque[Event] = deque()
        self._last_headers: Fields | None = None  # a client sends the same ones again and again
        self._last_method: tuple[NewHandler, float | None]

    @property
    def open_calls(self) -> int:
        """How many calls have begun and not ended."""
        return len(self._calls)

    @property
    def is_closed(self) -> bool:
        """Whether nothing will follow: the transport may be closed when all has been sent."""
        return self._connection.is_closed

    def receive(self, data: bytes, now_s: float) -> None:
        """Take what has arrived; `handle_some` answers it."""
        self._unhandled.extend(self._connection.receive(data, now_s))
        while len(self._unhandled) > MAX_UNHANDLED:
            self.handle_some()

    def handle_some(self) -> bool:
        """Answer at most MOST_AT_ONCE messages; returns whether there are more."""
        unhandled, calls = self._unhandled, self._calls
        left = MOST_AT_ONCE
        while unhandled and left:
            event = unhandled.popleft()
            if not isinstance(event, DataReceived):
                self._handle(event)
                continue
            left -= 1
            call = calls.get(event.stream_id)
            if call is None:
                continue  # it is over, and the caller does not know that yet
            try:
                call.receive(event.data, event.is_ended)
            except Exception as error:  # a fault of ours must not end the other calls of the connection
                self._failed(call, error)
        return bool(unhandled)

    def data_to_send(self) -> bytes:
        """Return the bytes to write."""
        return self._connection.data_to_send()

    def drain(self) -> None:
        """Take no more calls, and end those that are no longer needed."""
        self._handle_all()
        for call in tuple(self._calls.values()):
            call.drain()
        self._connection.go_away()

    def finish(self) -> None:
        """End all calls, and take no more."""
        self._handle_all()
        for call in tuple(self._calls.values()):
            call.finish(Status.UNAVAILABLE, "the server stops")
        self._connection.go_away()

    def connection_lost(self) -> None:
        """End every call: the connection is gone."""
        self._handle_all()
        for event in self._connection.connection_lost():
            self._handle(event)

    def _handle_all(self) -> None:
        while self.handle_some():
            pass

    def _handle(self, event: Event) -> None:
        if isinstance(event, StreamOpened):
            self._open(event)
        elif isinstance(event, StreamClosed):
            if (call := self._calls.get(event.stream_id)) is not None:
                call.end()
        elif isinstance(event, StreamEnded):
            self._unhandled.appendleft(DataReceived(event.stream_id, b"", True))
        elif isinstance(event, ConnectionEnded) and event.code is not ErrorCode.NO_ERROR:
            self._service.refused(ProtocolError(f"HTTP/2: {event.code.name}: {event.reason}"))

    def _open(self, event: StreamOpened) -> None:
        try:
            if event.headers is not self._last_headers:
                self._last_method = self._method(event.headers)
                self._last_headers = event.headers
            new_handler, timeout_s = self._last_method
            service = self._service
            call = Call(
                self._connection,
                event.stream_id,
                self._calls,
                service.max_message_bytes,
                service.unfinished,
                new_handler,
            )
        except NotGrpcError as error:
            self._answer(event, refusal(error.http_status))
        except CallError as error:
            self._answer(event, RESPONSE_HEADERS + trailers(error.status, str(error)))
        else:
            if timeout_s is not None:
                call.deadline = self._call_later(timeout_s, partial(call.finish, Status.DEADLINE_EXCEEDED))
            if event.is_ended:
                self._unhandled.appendleft(DataReceived(event.stream_id, b"", True))

    def _method(self, headers: Fields) -> tuple[NewHandler, float | None]:
        """Return what handles a call that begins so, and its deadline in seconds, None without one."""
        head = read_head(headers)
        new_handler = self._service.methods.get(head.path)
        if new_handler is None:
            raise CallError(Status.UNIMPLEMENTED, "no such method")
        return new_handler, head.timeout_s

    def _answer(self, event: StreamOpened, block: bytes) -> None:
        """Send a whole response without a body, and stop a caller that would go on."""
        self._connection.send_headers(event.stream_id, block, end_stream=True)
        if not event.is_ended:
            self._connection.reset(event.stream_id, ErrorCode.NO_ERROR)

    def _failed(self, call: Call, error: Exception) -> None:
        """End a call for what was sent on it, or for a fault of ours."""
        if isinstance(error, ProtocolError):
            self._service.refused(error)
            call.finish(error.status if isinstance(error, CallError) else Status.INVALID_ARGUMENT, str(error))
        else:
            logger.error("call_failed", exc_info=error)
            call.finish(Status.UNKNOWN, "internal error")
