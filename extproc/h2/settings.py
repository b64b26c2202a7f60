"""SETTINGS (RFC 9113 §6.5): what we announce, and what a peer may."""

from struct import Struct
from typing import Final

from extproc.h2.faults import ErrorCode, FatalError
from extproc.h2.flow import INITIAL_WINDOW, MAX_WINDOW
from extproc.h2.frames import SETTINGS, frame, window_update
from extproc.h2.h2_limits import Limits

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
    """§3.4: no HPACK table, and large windows; no setting can change the connection's (§6.9.2)."""
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
    """The settings in their order, with values that §6.5.2 allows; unknown ones included."""
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
