"""One gRPC call: an HTTP/2 stream on one side, a method's handler on the other.

There is no task per call. What arrives is handed on in the order of its arrival, the handler answers at once
or later, and learns exactly once that the call is over, however that came about.
"""

from collections.abc import Callable
from typing import Protocol

from extproc.h2.connection import ServerConnection
from extproc.h2.events import ErrorCode
from extproc.h2.grpc_wire import RESPONSE_HEADERS, CallError, MessageReader, Status, prefixed, trailers


class Handler:
    """Implements a method, for one call, by the events that concern it; ProtocolError ends the call."""

    __slots__ = ()

    def receive(self, message: bytes) -> None:
        """Take a message of the caller."""

    def half_close(self) -> None:
        """Follow that the caller sends no more."""

    def drain(self) -> None:
        """End the call if nobody needs it any more: the server is about to stop."""

    def end(self) -> None:
        """Follow the end of the call: what is sent from now on goes nowhere."""


class Timer(Protocol):
    """What has been put on an event loop, to happen later."""

    def cancel(self) -> None:
        """It shall not happen."""


class Call:
    """One stream's call, from its headers until it `is_over`: it is in `open_calls` as long."""

    __slots__ = (
        "_connection",
        "_handler",
        "_has_answered",
        "_is_half_closed",
        "_open_calls",
        "_reader",
        "_stream_id",
        "deadline",
        "is_over",
    )

    def __init__(
        self,
        connection: ServerConnection,
        stream_id: int,
        open_calls: dict[int, "Call"],
        max_message_bytes: int,
        new_handler: "NewHandler",
    ) -> None:
        self.deadline: Timer | None = None
        self.is_over = False
        self._connection = connection
        self._stream_id = stream_id
        self._open_calls = open_calls
        self._reader = MessageReader(max_message_bytes)
        self._has_answered = False
        self._is_half_closed = False
        self._handler = new_handler(self)
        open_calls[stream_id] = self

    def receive(self, data: bytes, is_ended: bool) -> None:
        """Take bytes of any part of any number of messages; `is_ended` says that none follow.

        Raises ProtocolError for what is no message, and where the handler does.
        """
        self._is_half_closed = is_ended
        for message in self._reader.receive(data) if data else ():
            self._handler.receive(message)
            if self.is_over:
                return
        if is_ended:
            if self._reader.is_within_message:
                raise CallError(Status.INVALID_ARGUMENT, "the stream ended within a message")
            self._handler.half_close()

    def drain(self) -> None:
        """The server is about to stop."""
        self._handler.drain()

    def send(self, message: bytes) -> None:
        """Send a message; after the end it goes nowhere."""
        if self.is_over:
            return
        if not self._has_answered:
            self._has_answered = True
            self._connection.send_headers(self._stream_id, RESPONSE_HEADERS)
        self._connection.send_data(self._stream_id, prefixed(message))

    def finish(self, status: Status = Status.OK, text: str = "") -> None:
        """End the call with a status; after the end it does nothing.

        A caller that has not ended its side is told to stop (RFC 9113, 8.1).
        """
        if self.is_over:
            return
        block = trailers(status, text)
        if not self._has_answered:
            block = RESPONSE_HEADERS + block
        self._connection.send_headers(self._stream_id, block, end_stream=True)
        if not self._is_half_closed:
            self._connection.reset(self._stream_id, ErrorCode.NO_ERROR)
        self.end()

    def end(self) -> None:
        """The stream is gone; ending again does nothing."""
        if self.is_over:
            return
        self.is_over = True
        del self._open_calls[self._stream_id]
        if self.deadline is not None:
            self.deadline.cancel()
        self._handler.end()


NewHandler = Callable[[Call], Handler]
