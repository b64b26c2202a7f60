"""gRPC's messages within an HTTP/2 stream: each is prefixed by a flag and its length.

Between the DATA frames of a stream and the messages of its call, with no regard to where one frame ends and
the next begins. "Length-Prefixed-Message" in gRPC's protocol over HTTP/2,
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

from struct import Struct

from extproc.h2.grpc_status import CallError, Status

_PREFIX = Struct(">BL")
PREFIX_BYTES = _PREFIX.size


def prefixed(message: bytes) -> bytes:
    """The message as it is sent: flag, length, message."""
    return _PREFIX.pack(0, len(message)) + message


class MessageReader:
    """Takes the bytes of a stream's DATA frames as they come; keeps what is not a whole message yet."""

    __slots__ = ("_max_bytes", "_needed_bytes", "_pending")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pending: bytearray | None = None
        self._needed_bytes = PREFIX_BYTES

    @property
    def is_within_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._pending is not None

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that these bytes complete.

        Raises CallError for a compressed message (UNIMPLEMENTED) and for one that is too large
        (RESOURCE_EXHAUSTED), as soon as its prefix is there.
        """
        if self._pending is None:
            if len(data) >= PREFIX_BYTES and self._end_of_message(data, 0) == len(data):
                return [data[PREFIX_BYTES:]]  # by far the most frequent case: one frame, one message
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

    def _end_of_message(self, data: bytes | bytearray, at: int) -> int:
        is_compressed, length = _PREFIX.unpack_from(data, at)
        if is_compressed:
            raise CallError(Status.UNIMPLEMENTED, "compressed messages are not supported")
        if length > self._max_bytes:
            raise CallError(
                Status.RESOURCE_EXHAUSTED, f"a message of {length} bytes; at most {self._max_bytes} are taken"
            )
        end: int = at + PREFIX_BYTES + length
        return end
