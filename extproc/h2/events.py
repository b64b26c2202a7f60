"""What became of a peer's bytes: the events that `ServerConnection.receive` returns, in order.

Structs of msgspec and not dataclasses: three are made for every request, and a frozen dataclass takes ten
times as long to make.
"""

from msgspec import Struct

from extproc.h2.faults import ErrorCode

Fields = tuple[tuple[bytes, bytes], ...]
"""Pseudo-header fields first, then the others, as they came; names are lower case."""


class StreamOpened(Struct, frozen=True, gc=False):
    """A well-formed request has begun; `is_ended` if it has no body."""

    stream_id: int
    headers: Fields
    is_ended: bool


class DataReceived(Struct, frozen=True, gc=False):
    """Part of a request's body, without padding; never empty, unless it ends the request."""

    stream_id: int
    data: bytes
    is_ended: bool


class StreamEnded(Struct, frozen=True, gc=False):
    """The request has ended with trailers."""

    stream_id: int


class StreamClosed(Struct, frozen=True, gc=False):
    """A stream is gone before both sides had ended it: nothing can be sent on it any more.

    Comes once for every opened stream that ends so, except for those that the application has reset itself.
    `code` is that of the RST_STREAM of either side; None: the connection has ended.
    """

    stream_id: int
    code: ErrorCode | None


class ConnectionEnded(Struct, frozen=True, gc=False):
    """The last event. Write what is to be sent, then close the transport; NO_ERROR: drained, or lost."""

    code: ErrorCode
    reason: str


Event = StreamOpened | DataReceived | StreamEnded | StreamClosed | ConnectionEnded
