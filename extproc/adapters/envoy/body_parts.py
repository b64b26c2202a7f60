"""Parts of bodies on the wire: a gateway has each of them handed back.

Those of a response are one for each token, so that a part is handed back as the bytes that came, in a longer
frame, and is never parsed as a message. A gateway sends parts of a body (HttpBody) and takes the
same bytes (StreamedBodyResponse): `protos/ext_proc.proto`.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from extproc.adapters.envoy.protobuf_bytes import length_delimited, read_varint, varint
from extproc.adapters.protos import ext_proc_pb2 as pb
from extproc.errors import ProtocolError
from extproc.exchange.gateway_messages import SendBody
from extproc.h2.grpc_wire import prefix_of

_RESPONSE_BODY = 0x2A  # the tags of ProcessingRequest.response_body, HttpBody.body and .end_of_stream
_BODY, _ENDS = 0x0A, b"\x10\x01"
_LENGTHS_BYTES = 6
"""The two tags, and the two lengths of a part below 16 KB."""
_MOST_BYTES = 1 << 31
"""No gRPC message has twice as many."""
_AROUND_PART = (b"\x1a", b"\x1a", b"\x0a")  # BodyMutation, CommonResponse and BodyResponse
_REQUEST_BODY_ANSWER, _RESPONSE_BODY_ANSWER = b"\x1a", b"\x22"  # in ProcessingResponse


class _Layout(NamedTuple):
    """Where a part lies in its message, and the data in it; `frames` are all that an answer has around it."""

    begins: int
    data_begins: int
    data_ends: int
    ends: int
    frames: bytes


def response_part(message: bytes) -> tuple[bytes, bool, bytes] | None:
    """Return data and end of a part of the response's body, and the answer that hands it back, prefixed.

    None for any other message, and for one that has other fields, or in another order.
    """
    if not message or message[0] != _RESPONSE_BODY:
        return None
    layout = _known_layout(message[:_LENGTHS_BYTES]) or _layout(message)
    if layout is None or layout.ends > len(message):
        raise ProtocolError("ext_proc: a part of a body is cut short")
    begins, data_begins, data_ends, ends, frames = layout
    is_last = data_ends < ends
    if is_last and message[data_ends:ends] != _ENDS:
        return None
    return message[data_begins:data_ends], is_last, frames + message[begins:ends]


def unusual_response_part(message: bytes) -> tuple[bytes, bool, bytes]:
    """Do as `response_part` does, whatever the order of the fields; for what `decode` has read."""
    body = pb.ProcessingRequest.FromString(message).response_body
    part = body.SerializeToString()
    return body.body, body.end_of_stream, _frames_of_response(len(part)) + part


def _layout(head: bytes) -> _Layout | None:
    """Read the lengths at the beginning of a message; None where it ends before them, or before its end."""
    size, begins = read_varint(head, 1)
    data_begins = data_ends = begins
    if begins + bool(size) > len(head) or size > _MOST_BYTES:
        return None
    if size and head[begins] == _BODY:
        length, data_begins = read_varint(head, begins + 1)
        if data_begins > len(head):
            return None
        data_ends = data_begins + length
        if data_ends > begins + size:
            raise ProtocolError("ext_proc: a part of a body is cut short")
    return _Layout(begins, data_begins, data_ends, begins + size, _frames_of_response(size))


_known_layout = lru_cache(maxsize=4096)(_layout)
"""Parts are alike: most have the length of one before, and lines of events begin with the same bytes."""


def request_part(instruction: SendBody) -> bytes:
    """Write an answer that hands back a part of the request's body."""
    data = instruction.data
    part = length_delimited(b"\x0a", data) if data else b""
    if instruction.end_of_stream:
        part += _ENDS
    return framed((*_AROUND_PART, _REQUEST_BODY_ANSWER), len(part)) + part


def _frames_of_response(size: int) -> bytes:
    frames = framed((*_AROUND_PART, _RESPONSE_BODY_ANSWER), size)
    return prefix_of(len(frames) + size) + frames


def framed(tags: Sequence[bytes], size: int) -> bytes:
    """Return the tags and lengths around a message of `size` bytes, which is within all of `tags`."""
    frames = b""
    for tag in tags:
        frames = tag + varint(size + len(frames)) + frames
    return frames
