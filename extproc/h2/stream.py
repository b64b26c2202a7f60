"""Streams that are not closed (RFC 9113 §5.1): open, or half closed on either side; and their windows."""

from typing import Final

from msgspec import Struct

from extproc.h2.events import ErrorCode, FatalError, StreamError

MAX_WINDOW: Final = 2**31 - 1
INITIAL_WINDOW: Final = 65_535
"""§6.9.2: of every connection and, until SETTINGS say otherwise, of every stream."""


class ReceiveWindow:
    """The bytes that the peer may still send: `left`, which the receiver counts down (§6.9).

    It is refilled at half: as little as one WINDOW_UPDATE for many frames, and never a peer that has to wait.
    """

    __slots__ = ("_size", "half", "left")

    def __init__(self, size: int) -> None:
        self._size = self.left = size
        self.half = size >> 1

    def refill(self) -> int:
        """Make the window whole again; returns the increment to announce."""
        increment = self._size - self.left
        self.left = self._size
        return increment


class Stream(Struct, eq=False, gc=False):
    """The state of a stream of which a side has not ended."""

    stream_id: int
    send_window: int  # may be negative, §6.9.2
    receive_left: int  # what the peer may still send, as `ReceiveWindow.left`
    unreceived_bytes: int | None  # of the content-length; None without one
    queue: bytearray | None = None  # data that the peer's windows do not admit yet
    trailers: bytes | None = None  # a header block that waits behind the queue
    is_received: bool = False  # half closed (remote): the peer has ended its side
    is_sent: bool = False  # half closed (local): our END_STREAM is out
    is_answered: bool = False  # we have sent headers
    is_ending: bool = False  # the caller has ended it: nothing more comes to send
    is_reset_when_sent: bool = False  # §8.1: the answer is complete before the request

    def count_content(self, size: int, *, ends: bool) -> None:
        """Check that all DATA together is as long as the content-length says (§8.1.1)."""
        left = (self.unreceived_bytes or 0) - size
        if left < 0 or (ends and left > 0):
            raise StreamError(self.stream_id, ErrorCode.PROTOCOL_ERROR)
        self.unreceived_bytes = left


class StreamTable:
    """`live` holds a stream until both sides have ended it, or one has reset it.

    No memory is kept of a closed stream. A frame for one is forgiven if we may have reset it, so that the
    peer could not know when it sent the frame: up to the highest stream that we have reset. Beyond, the peer
    has ended the stream itself, or has skipped it, which closes it too (§5.1.1).
    """

    __slots__ = ("highest", "highest_accepted", "highest_reset", "is_draining", "is_refusing", "live")

    def __init__(self) -> None:
        self.live: dict[int, Stream] = {}
        self.highest = self.highest_accepted = self.highest_reset = 0
        self.is_draining = self.is_refusing = False

    def find(self, stream_id: int) -> Stream | None:
        """Return the stream, None if it is closed; an idle one, as all even ones, is an error (§5.1)."""
        stream = self.live.get(stream_id)
        if stream is None and (stream_id > self.highest or not stream_id & 1):
            raise FatalError(ErrorCode.PROTOCOL_ERROR, "frame on an idle stream")
        return stream

    def forgive(self, stream_id: int) -> None:
        """Raise an error for content on a closed stream, unless the peer could not know (§5.1)."""
        if stream_id > self.highest_reset:
            raise FatalError(ErrorCode.STREAM_CLOSED, "frame on a closed stream")
