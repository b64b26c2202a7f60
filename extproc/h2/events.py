"""The events in a peer's bytes: the events that `ServerConnection.receive` returns, in order, and faults.

A fault reaches one stream or the whole connection (RFC 9113 §5.4, §7). It is raised where a rule is broken
and caught in `ServerConnection`; none of them leaves this package.

Events are structs of msgspec and not dataclasses: three are made for every request, and a frozen dataclass
takes ten times as long to make.
"""

from enum import IntEnum

from msgspec import Struct

from extproc.errors import ProtocolError


class ErrorCode(IntEnum):
    """RFC 9113 §7."""

    NO_ERROR = 0x00
    PROTOCOL_ERROR = 0x01
    INTERNAL_ERROR = 0x02
    FLOW_CONTROL_ERROR = 0x03
    SETTINGS_TIMEOUT = 0x04
    STREAM_CLOSED = 0x05
    FRAME_SIZE_ERROR = 0x06
    REFUSED_STREAM = 0x07
    CANCEL = 0x08
    COMPRESSION_ERROR = 0x09
    CONNECT_ERROR = 0x0A
    ENHANCE_YOUR_CALM = 0x0B
    INADEQUATE_SECURITY = 0x0C
    HTTP_1_1_REQUIRED = 0x0D


_BY_VALUE = {int(code): code for code in ErrorCode}


def error_code(value: int) -> ErrorCode:
    """Return the error code; an unknown one counts as INTERNAL_ERROR (§7)."""
    return _BY_VALUE.get(value, ErrorCode.INTERNAL_ERROR)


class FatalError(ProtocolError):
    """A connection error of §5.4.1: answered with GOAWAY, and the connection ends."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason


class StreamError(ProtocolError):
    """A stream error of §5.4.2: answered with RST_STREAM, and the other streams go on."""

    def __init__(self, stream_id: int, code: ErrorCode) -> None:
        super().__init__(f"{code.name} on stream {stream_id}")
        self.stream_id = stream_id
        self.code = code


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
