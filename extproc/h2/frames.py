"""Frames (RFC 9113 §3.4, §4, §6): their types, flags and layouts, how bytes are cut into them, SETTINGS."""

from collections.abc import Iterator
from struct import Struct
from typing import Final

from extproc.h2.events import ErrorCode, FatalError
from extproc.h2.h2_limits import Limits
from extproc.h2.stream import INITIAL_WINDOW, MAX_WINDOW

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

HEADER: Final = Struct(">LBL")
"""Length (24 bits) and type (8 bits) as one number, flags, stream id with the reserved bit."""
UINT32: Final = Struct(">L")
_WITH_UINT32: Final = Struct(">LBLL")
_FOUR_BYTES: Final = 4 << 8
_GOAWAY: Final = Struct(">LL")


def frame(kind: int, flags: int, stream_id: int, payload: bytes | bytearray = b"") -> bytes:
    """Return any frame."""
    return HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """Encode RST_STREAM (§6.4)."""
    return _WITH_UINT32.pack(_FOUR_BYTES | RST_STREAM, 0, stream_id, code)


def window_update(stream_id: int, increment: int) -> bytes:
    """Encode WINDOW_UPDATE (§6.9)."""
    return _WITH_UINT32.pack(_FOUR_BYTES | WINDOW_UPDATE, 0, stream_id, increment)


def goaway(last_stream_id: int, code: ErrorCode, reason: str = "") -> bytes:
    """Encode GOAWAY (§6.8); the reason travels as debug data."""
    return frame(GOAWAY, 0, 0, _GOAWAY.pack(last_stream_id, code) + reason.encode())


def content(flags: int, payload: bytes) -> bytes:
    """Return the payload of HEADERS, or of DATA, without padding and priority (§6.1, §6.2)."""
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
    """Return the only field of RST_STREAM and WINDOW_UPDATE, which have no other length (§6.4, §6.9)."""
    if len(payload) != 4:
        raise FatalError(ErrorCode.FRAME_SIZE_ERROR, "payload must have 4 octets")
    value: int = UINT32.unpack(payload)[0]
    return value


PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_TLS_HELLO = b"\x16\x03"
"""The first bytes of a client that speaks TLS (RFC 8446, 5.1)."""

Frame = tuple[int, int, int, bytes]
"""Type, flags, stream id, payload."""


class FrameReader:
    """Cuts bytes into frames, however they arrive; keeps the beginning of one frame at most."""

    __slots__ = ("_has_preface", "_max_frame_bytes", "_needed_bytes", "_partial")

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._partial = bytearray()
        self._needed_bytes = 0
        self._has_preface = False

    def read(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete with `data`; raises FatalError in their midst."""
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed_bytes:
                return
            data = bytes(self._partial)
            self._partial.clear()
        offset = 0
        if not self._has_preface:
            if not self._is_preface(data):
                return
            offset = len(PREFACE)
        end, unpack_from = len(data), HEADER.unpack_from
        self._needed_bytes = HEADER_BYTES
        while (start := offset + HEADER_BYTES) <= end:
            size_and_kind, flags, stream_id = unpack_from(data, offset)
            size = size_and_kind >> 8
            if size > self._max_frame_bytes:
                raise FatalError(ErrorCode.FRAME_SIZE_ERROR, "frame longer than announced")
            if start + size > end:
                self._needed_bytes += size
                break
            offset = start + size
            yield size_and_kind & 0xFF, flags, stream_id & MAX_STREAM_ID, data[start:offset]
        if offset < end:
            self._partial += data[offset:]

    def _is_preface(self, data: bytes) -> bool:
        """Return False as long as it is only the beginning of one."""
        if not PREFACE.startswith(data[: len(PREFACE)]):
            found = ", but TLS" if data.startswith(_TLS_HELLO) else ""
            raise FatalError(ErrorCode.PROTOCOL_ERROR, f"not the preface of HTTP/2{found}")
        self._has_preface = len(data) >= len(PREFACE)
        if not self._has_preface:
            self._partial += data
        return self._has_preface


HEADER_TABLE_SIZE: Final = 0x01
ENABLE_PUSH: Final = 0x02
MAX_CONCURRENT_STREAMS: Final = 0x03
INITIAL_WINDOW_SIZE: Final = 0x04
MAX_FRAME_SIZE: Final = 0x05
MAX_HEADER_LIST_SIZE: Final = 0x06

DEFAULT_TABLE_BYTES: Final = 4096
DEFAULT_MAX_FRAME: Final = 2**14

_SETTING: Final = Struct(">HL")


def server_preface(limits: Limits) -> bytes:
    """Encode our SETTINGS: no HPACK table, large windows (§3.4); none sets the connection's (§6.9.2)."""
    settings = {
        HEADER_TABLE_SIZE: 0,
        MAX_CONCURRENT_STREAMS: limits.max_concurrent_streams,
        INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
        MAX_FRAME_SIZE: limits.max_frame_bytes,
        MAX_HEADER_LIST_SIZE: limits.max_header_list_bytes,
    }
    payload = b"".join(_SETTING.pack(setting, value) for setting, value in settings.items())
    return frame(SETTINGS, 0, 0, payload) + window_update(0, limits.connection_window_bytes - INITIAL_WINDOW)


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return the settings in their order, with values that §6.5.2 allows; unknown ones included."""
    if len(payload) % _SETTING.size:
        raise FatalError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a broken length")
    settings: list[tuple[int, int]] = list(_SETTING.iter_unpack(payload))
    for setting, value in settings:
        if setting == ENABLE_PUSH and value > 1:
            raise FatalError(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        if setting == INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise FatalError(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE over 2^31-1")
        if setting == MAX_FRAME_SIZE and not DEFAULT_MAX_FRAME <= value < 2**24:
            raise FatalError(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE out of range")
    return settings
