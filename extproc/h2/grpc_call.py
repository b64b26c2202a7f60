"""One gRPC call: an HTTP/2 stream on one side, a method's handler on the other.

There is no task per call. Messages are handed on in the order of their arrival, the handler answers at once
or later, and learns exactly once that the call is over, however that came about.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from extproc.errors import ProtocolError
from extproc.h2.connection import ServerConnection
from extproc.h2.events import ErrorCode
from extproc.h2.grpc_wire import (
    OK_TRAILERS,
    PREFIX,
    PREFIX_BYTES,
    RESPONSE_HEADERS,
    CallError,
    MessageReader,
    Status,
    trailers,
)


class Handler:
    """Implements a method, for one call, by the events that concern it; ProtocolError ends the call."""

    __slots__ = ()

    def receive(self, message: bytes) -> None:
        """Take a message of the caller."""

    def half_close(self) -> None:
        """Follow that the caller sends no more."""

    def drain(self) -> None:
        """End the call if it is no longer needed: the server is about to stop."""

    def end(self) -> None:
        """Follow the end of the call: what is sent from now on goes nowhere."""


_ENDED = Handler()


class Timer(Protocol):
    """A callback that an event loop will run later."""

    def cancel(self) -> None:
        """Cancel the call."""


@dataclass(slots=True)
class UnfinishedMessages:
    """The bytes of messages that have begun and not ended, over all connections: at most `max_bytes`.

    Flow control would bound them as well, and hold up every call of a connection for those that never end.
    """

    max_bytes: int
    refused: Callable[[ProtocolError], None]
    total_bytes: int = 0
    by_call: "dict[Call, int]" = field(default_factory=dict)

    def note(self, call: "Call", size: int) -> None:
        """Note how much there is of a call's message; beyond the bound the call with the most is ended."""
        self.total_bytes += size - self.by_call.pop(call, 0)
        if size:
            self.by_call[call] = size
        if self.total_bytes > self.max_bytes:
            largest = max(self.by_call, key=self.by_call.__getitem__)
            error = CallError(Status.RESOURCE_EXHAUSTED, "too many bytes of messages that have not ended")
            self.refused(error)
            largest.finish(error.status, str(error))


class Call:
    """One stream's call, from its headers until it `is_over`: it is in `open_calls` as long."""

    __slots__ = (
        "_connection",
        "_handler",
        "_has_answered",
        "_is_half_closed",
        "_max_message_bytes",
        "_open_calls",
        "_partial",
        "_stream_id",
        "_unfinished",
        "deadline",
        "is_over",
    )

    def __init__(
        self,
        connection: ServerConnection,
        stream_id: int,
        open_calls: dict[int, "Call"],
        max_message_bytes: int,
        unfinished: UnfinishedMessages,
        new_handler: "NewHandler",
    ) -> None:
        self.deadline: Timer | None = None
        self.is_over = False
        self._connection = connection
        self._stream_id = stream_id
        self._open_calls = open_calls
        self._max_message_bytes = max_message_bytes
        self._partial: MessageReader | None = None
        self._unfinished = unfinished
        self._has_answered = False
        self._is_half_closed = False
        self._handler = new_handler(self)
        open_calls[stream_id] = self

    def receive(self, data: bytes, is_ended: bool) -> None:
        """Take bytes of any part of any number of messages; `is_ended` says that none follow.

        Raises ProtocolError for what is no message, and where the handler does.
        """
        self._is_half_closed = is_ended
        size = len(data) - PREFIX_BYTES
        if self._partial is None and int.from_bytes(data[:PREFIX_BYTES]) == size <= self._max_message_bytes:
            self._handler.receive(data[PREFIX_BYTES:])  # by far the most frequent: one frame, one message
        elif data:
            self._receive_parts(data)
        if is_ended and not self.is_over:
            if self._partial is not None:
                raise CallError(Status.INVALID_ARGUMENT, "the stream ended within a message")
            self._handler.half_close()

    def _receive_parts(self, data: bytes) -> None:
        """Take parts of messages; of the last one there may be the beginning only."""
        reader = self._partial = self._partial or MessageReader(self._max_message_bytes)
        messages = reader.receive(data)
        if not reader.is_within_message:
            self._partial = None
        self._unfinished.note(self, reader.pending_bytes)
        for message in messages:
            if self.is_over:
                return
            self._handler.receive(message)

    def drain(self) -> None:
        """Prepare for the server's stop."""
        self._handler.drain()

    def send(self, message: bytes) -> None:
        """Send a message; after the end it goes nowhere."""
        self.send_prefixed(PREFIX.pack(0, len(message)) + message)

    def send_prefixed(self, message: bytes) -> None:
        """Send a message that has its prefix."""
        if self.is_over:
            return
        if not self._has_answered:
            self._has_answered = True
            self._connection.send_headers(self._stream_id, RESPONSE_HEADERS)
        self._connection.send_data(self._stream_id, message)

    def finish(self, status: Status = Status.OK, text: str = "") -> None:
        """End the call with a status; after the end it does nothing.

        A caller that has not ended its side is asked to stop (RFC 9113, 8.1).
        """
        if self.is_over:
            return
        block = OK_TRAILERS if status is Status.OK and not text else trailers(status, text)
        if not self._has_answered:
            block = RESPONSE_HEADERS + block
        self._connection.send_headers(self._stream_id, block, end_stream=True)
        if not self._is_half_closed:
            self._connection.reset(self._stream_id, ErrorCode.NO_ERROR)
        self.end()

    def end(self) -> None:
        """End the call: its stream is gone. Ending again does nothing."""
        if self.is_over:
            return
        self.is_over = True
        if self._partial is not None:
            self._partial = None
            self._unfinished.note(self, 0)
        del self._open_calls[self._stream_id]
        if self.deadline is not None:
            self.deadline.cancel()
        handler, self._handler = self._handler, _ENDED  # a cycle would be left to the collector
        handler.end()


NewHandler = Callable[[Call], Handler]
