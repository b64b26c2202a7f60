"""Frames as bytes (RFC 9113 §4.1, §6): their types, flags and layouts."""

from struct import Struct
from typing import Final

from extproc.h2.faults import ErrorCode, FatalError

DATA: Final = 0x00
HEADERS: Final = 0x01
PRIORITY: Final = 0x02
RST_STREAM: Final = 0x03
SETTINGS: Final = 0x04
PUSH_PROMISE: Final = 0x05
PING: Final = 0x06
GOAWAY: Final = 0x07
WINDOW_UPDATE: Final = 0x08
CONTINUATION: Final = 0x09

END_STREAM: Final = 0x01
ACK: Final = 0x01
END_HEADERS: Final = 0x04
PADDED: Final = 0x08
HAS_PRIORITY: Final = 0x20

HEADER_BYTES: Final = 9
MAX_STREAM_ID: Final = 2**31 - 1

HEADER: Final = Struct(">HBBBL")
"""Length (24 bits, in two parts), type, flags, stream id with the reserved bit."""
UINT32: Final = Struct(">L")
_WITH_UINT32: Final = Struct(">HBBBLL")
_GOAWAY: Final = Struct(">LL")


def frame(kind: int, flags: int, stream_id: int, payload: bytes | bytearray = b"") -> bytes:
    """Any frame."""
    size = len(payload)
    return HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """§6.4."""
    return _WITH_UINT32.pack(0, 4, RST_STREAM, 0, stream_id, code)


def window_update(stream_id: int, increment: int) -> bytes:
    """§6.9."""
    return _WITH_UINT32.pack(0, 4, WINDOW_UPDATE, 0, stream_id, increment)


def goaway(last_stream_id: int, code: ErrorCode, reason: str = "") -> bytes:
    """§6.8; the reason travels as debug data."""
    return frame(GOAWAY, 0, 0, _GOAWAY.pack(last_stream_id, code) + reason.encode())


def content(flags: int, payload: bytes) -> bytes:
    """The payload of HEADERS, or of DATA, without padding and priority (§6.1, §6.2)."""
    start, padding = 0, 0
    if flags & PADDED:
        start, padding = 1, payload[0] if payload else 0
    if flags & HAS_PRIORITY:
        start += 5
    if start > len(payload):
        raise FatalError(ErrorCode.FRAME_SIZE_ERROR, "frame too short for its flags")
    if padding > len(payload) - start:
        raise FatalError(ErrorCode.PROTOCOL_ERROR, "padding longer than the payload")
    return payload[start : len(payload) - padding]


def uint32(payload: bytes) -> int:
    """The only field of RST_STREAM and WINDOW_UPDATE, which have no other length (§6.4, §6.9)."""
    if len(payload) != 4:
        raise FatalError(ErrorCode.FRAME_SIZE_ERROR, "payload must have 4 octets")
    value: int = UINT32.unpack(payload)[0]
    return value
