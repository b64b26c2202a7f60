"""What a peer did wrong, and how far it reaches: one stream or the whole connection (RFC 9113 §5.4, §7).

Raised where a rule is broken and caught in `ServerConnection`; none of them leaves this package.
"""

from enum import IntEnum

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
    """§7: an unknown code may be taken for INTERNAL_ERROR."""
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
