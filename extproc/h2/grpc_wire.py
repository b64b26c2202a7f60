"""gRPC on an HTTP/2 stream: how a call begins, its messages, and its status.

See https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. A request that is no gRPC at all is
answered by a plain HTTP status, as that document asks for.

The blocks of a response hardly vary, so they are made once, as HPACK literals that are never indexed: a
reader needs no table, and a sender keeps none (RFC 7541, 6.2.3). Statuses:
https://github.com/grpc/grpc/blob/master/doc/statuscodes.md.
"""

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from struct import Struct
from urllib.parse import quote

import hpack

from extproc.errors import ProtocolError
from extproc.h2.events import Fields

_MAX_TEXT = 512
_UNQUOTED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class Status(IntEnum):
    """The statuses that are sent here."""

    OK = 0
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    UNAVAILABLE = 14


class CallError(ProtocolError):
    """A call that ends with this status, for what was sent on it."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status


def _block(*fields: tuple[str, str]) -> bytes:
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*each) for each in fields], huffman=False)


RESPONSE_HEADERS = _block(
    (":status", "200"), ("content-type", "application/grpc"), ("grpc-accept-encoding", "identity")
)
"""The block before the first message."""


@lru_cache(maxsize=64)
def trailers(status: Status, text: str = "") -> bytes:
    """Return the block after the last message; `text` may be any, of which the beginning is sent."""
    message = quote(text[:_MAX_TEXT], safe=_UNQUOTED, errors="replace")
    return _block(("grpc-status", str(int(status))), *([("grpc-message", message)] if text else ()))


OK_TRAILERS = trailers(Status.OK)


@lru_cache(maxsize=8)
def refusal(http_status: int) -> bytes:
    """Return the block of a response to what is no gRPC."""
    return _block((":status", str(http_status)), ("content-length", "0"))


_CONTENT_TYPE = re.compile(rb"application/grpc([+;].*)?", re.DOTALL)
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


@dataclass(frozen=True, slots=True)
class CallHead:
    """The "Request-Headers": the method's path, `/SERVICE/METHOD`, and the deadline, None without one."""

    path: str
    timeout_s: float | None


class NotGrpcError(Exception):
    """A request of another kind; the HTTP status says which."""

    def __init__(self, http_status: int) -> None:
        super().__init__(f"HTTP status {http_status}")
        self.http_status = http_status


@lru_cache(maxsize=256)
def read_head(fields: Fields) -> CallHead:
    """Read a request's fields. Raises NotGrpcError for what is no gRPC, CallError for a bad timeout."""
    values = dict(fields)
    if values.get(b":method") != b"POST":
        raise NotGrpcError(405)
    if not _CONTENT_TYPE.fullmatch(values.get(b"content-type", b"")):
        raise NotGrpcError(415)
    return CallHead(values.get(b":path", b"").decode("latin-1"), _timeout_s(values.get(b"grpc-timeout")))


def _timeout_s(text: bytes | None) -> float | None:
    if text is None:
        return None
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise CallError(Status.INVALID_ARGUMENT, "grpc-timeout: not 1 to 8 digits and a unit")
    return int(match[1]) * _UNIT_S[match[2]]


PREFIX = Struct(">BL")
PREFIX_BYTES = PREFIX.size


def prefixed(message: bytes) -> bytes:
    """Return the message as it is sent: flag, length, message."""
    return PREFIX.pack(0, len(message)) + message


def prefix_of(size: int) -> bytes:
    """Return the prefix of a message of this many bytes."""
    return PREFIX.pack(0, size)


class MessageReader:
    """Reads "Length-Prefixed-Messages" from a stream's DATA frames, wherever these begin and end."""

    __slots__ = ("_max_bytes", "_needed_bytes", "_pending")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pending: bytearray | None = None
        self._needed_bytes = PREFIX_BYTES

    @property
    def is_within_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._pending is not None

    @property
    def pending_bytes(self) -> int:
        """How much there is of a message that has not ended."""
        return 0 if self._pending is None else len(self._pending)

    def receive(self, data: bytes) -> list[bytes]:
        """Return the messages that these bytes complete.

        Raises CallError for a compressed message (UNIMPLEMENTED) and for one that is too large
        (RESOURCE_EXHAUSTED), as soon as its prefix is there.
        """
        if self._pending is None:
            self._pending = bytearray()
        self._pending += data
        if len(self._pending) < self._needed_bytes:
            return []
        return self._completed(self._pending)

    def _completed(self, pending: bytearray) -> list[bytes]:
        messages = []
        at, end = 0, PREFIX_BYTES
        with memoryview(pending) as view:
            while at + PREFIX_BYTES <= len(pending):
                end = self._end_of_message(pending, at)
                if end > len(pending):
                    break
                messages.append(bytes(view[at + PREFIX_BYTES : end]))
                at, end = end, end + PREFIX_BYTES
        del pending[:at]
        self._needed_bytes = end - at
        if not pending:
            self._pending = None
        return messages

    def _end_of_message(self, data: bytearray, at: int) -> int:
        is_compressed, length = PREFIX.unpack_from(data, at)
        if is_compressed:
            raise CallError(Status.UNIMPLEMENTED, "compressed messages are not supported")
        if length > self._max_bytes:
            raise CallError(
                Status.RESOURCE_EXHAUSTED, f"a message of {length} bytes; at most {self._max_bytes} are taken"
            )
        end: int = at + PREFIX_BYTES + length
        return end
