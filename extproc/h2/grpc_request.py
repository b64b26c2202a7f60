"""What the header block that opens a gRPC call says: which method, and how long the caller waits.

"Request-Headers" in gRPC's protocol over HTTP/2,
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. What is no gRPC at all is answered by a plain
HTTP status, as that document asks for.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from extproc.h2.events import Fields
from extproc.h2.grpc_status import CallError, Status

_CONTENT_TYPE = re.compile(rb"application/grpc([+;].*)?", re.DOTALL)
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


@dataclass(frozen=True, slots=True)
class CallHead:
    """The method's path, `/SERVICE/METHOD`, and the deadline, None where the caller sets none."""

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
