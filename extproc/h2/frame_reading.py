"""From bytes to frames (RFC 9113 §3.4, §4.1, §4.2), however the bytes are cut."""

from collections.abc import Iterator
from typing import Final

from extproc.h2.faults import ErrorCode, FatalError
from extproc.h2.frames import HEADER, HEADER_BYTES, MAX_STREAM_ID

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

Frame = tuple[int, int, int, bytes]
"""Type, flags, stream id, payload."""


class FrameReader:
    """Keeps the beginning of a frame that has not fully arrived: never more than one frame."""

    __slots__ = ("_has_preface", "_max_frame_bytes", "_needed_bytes", "_partial")

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._partial = bytearray()
        self._needed_bytes = 0
        self._has_preface = False

    def read(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with `data`; raises FatalError in their midst."""
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
        end = len(data)
        needed_bytes = HEADER_BYTES
        while offset + HEADER_BYTES <= end:
            high, low, kind, flags, stream_id = HEADER.unpack_from(data, offset)
            size = high << 8 | low
            if size > self._max_frame_bytes:
                raise FatalError(ErrorCode.FRAME_SIZE_ERROR, "frame longer than announced")
            start = offset + HEADER_BYTES
            if start + size > end:
                needed_bytes += size
                break
            offset = start + size
            yield kind, flags, stream_id & MAX_STREAM_ID, data[start:offset]
        if offset < end:
            self._needed_bytes = needed_bytes
            self._partial += data[offset:]

    def _is_preface(self, data: bytes) -> bool:
        """False as long as it is only the beginning of one."""
        if not PREFACE.startswith(data[: len(PREFACE)]):
            raise FatalError(ErrorCode.PROTOCOL_ERROR, "not the preface of HTTP/2")
        self._has_preface = len(data) >= len(PREFACE)
        if not self._has_preface:
            self._partial += data
        return self._has_preface
