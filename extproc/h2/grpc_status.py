"""How a gRPC call is answered: its status, and the header blocks that carry it.

The blocks of a response hardly vary, so they are made once, as HPACK literals that are never indexed: whoever
reads them needs no table, and whoever sends them keeps none (RFC 7541, 6.2.2). Statuses:
https://github.com/grpc/grpc/blob/master/doc/statuscodes.md.
"""

from enum import IntEnum
from functools import lru_cache
from urllib.parse import quote

from extproc.errors import ProtocolError

_LITERAL_WITHOUT_INDEXING = b"\x00"
_STATUS_200 = b"\x88"  # entry 8 of the static table
_STRING_PREFIX = 0x7F
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


def _text(text: str) -> bytes:
    """An HPACK string without Huffman coding (RFC 7541, 5.2)."""
    content = text.encode("ascii")
    length = len(content)
    if length < _STRING_PREFIX:
        return bytes([length]) + content
    length -= _STRING_PREFIX
    encoded = bytearray([_STRING_PREFIX])
    while length >= 0x80:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded) + content


def _header(name: str, value: str) -> bytes:
    return _LITERAL_WITHOUT_INDEXING + _text(name) + _text(value)


RESPONSE_HEADERS = (
    _STATUS_200 + _header("content-type", "application/grpc") + _header("grpc-accept-encoding", "identity")
)
"""The block before the first message."""


@lru_cache(maxsize=64)
def trailers(status: Status, text: str = "") -> bytes:
    """The block after the last message; `text` may be any, of which the beginning is sent."""
    block = _header("grpc-status", str(int(status)))
    if text:
        block += _header("grpc-message", quote(text[:_MAX_TEXT], safe=_UNQUOTED, errors="replace"))
    return block


@lru_cache(maxsize=8)
def refusal(http_status: int) -> bytes:
    """The block of a response to what is no gRPC."""
    return _header(":status", str(http_status)) + _header("content-length", "0")
