"""Parts of bodies on the wire: a gateway has each of them handed back.

Those of a response are one for each token, so that a part is handed back as the bytes that came, in a longer
frame, and is never parsed as a message. A gateway sends parts of a body (HttpBody) and takes the
same bytes (StreamedBodyResponse): `protos/ext_proc.proto`.
"""

from collections.abc import Sequence
from functools import lru_cache

from extproc.adapters.envoy.protobuf_bytes import length_delimited, read_varint, varint
from extproc.adapters.protos import ext_proc_pb2 as pb
from extproc.errors import ProtocolError
from extproc.exchange.gateway_messages import SendBody

_RESPONSE_BODY = 0x2A  # the tags of ProcessingRequest.response_body, HttpBody.body and .end_of_stream
_BODY, _ENDS = 0x0A, b"\x10\x01"
_AROUND_PART = (b"\x1a", b"\x1a", b"\x0a")  # BodyMutation, CommonResponse and BodyResponse
_REQUEST_BODY_ANSWER, _RESPONSE_BODY_ANSWER = b"\x1a", b"\x22"  # in ProcessingResponse


def response_part(message: bytes) -> tuple[bytes, bool, bytes] | None:
    """Return data and end of a part of the response's body, and the answer that hands it back.

    None for any other message, and for one that has other fields, or in another order.
    """
    if not message or message[0] != _RESPONSE_BODY:
        return None
    size, start = read_varint(message, 1)
    end = start + size
    if end > len(message):
        raise ProtocolError("ext_proc: a part of a body is cut short")
    data, rest = b"", start
    if size and message[start] == _BODY:
        length, at = read_varint(message, start + 1)
        rest = at + length
        if rest > end:
            raise ProtocolError("ext_proc: a part of a body is cut short")
        data = message[at:rest]
    ends = rest < end
    if ends and message[rest:end] != _ENDS:
        return None
    return data, ends, _frames_of_response(size) + message[start:end]


def unusual_response_part(message: bytes) -> tuple[bytes, bool, bytes]:
    """Do as `response_part` does, whatever the order of the fields; for what `decode` has read."""
    body = pb.ProcessingRequest.FromString(message).response_body
    part = body.SerializeToString()
    return body.body, body.end_of_stream, _frames_of_response(len(part)) + part


def request_part(instruction: SendBody) -> bytes:
    """Write an answer that hands back a part of the request's body."""
    data = instruction.data
    part = length_delimited(b"\x0a", data) if data else b""
    if instruction.end_of_stream:
        part += _ENDS
    return framed((*_AROUND_PART, _REQUEST_BODY_ANSWER), len(part)) + part


@lru_cache(maxsize=4096)
def _frames_of_response(size: int) -> bytes:
    return framed((*_AROUND_PART, _RESPONSE_BODY_ANSWER), size)


def framed(tags: Sequence[bytes], size: int) -> bytes:
    """Return the tags and lengths around a message of `size` bytes, which is within all of `tags`."""
    frames = b""
    for tag in tags:
        frames = tag + varint(size + len(frames)) + frames
    return frames
