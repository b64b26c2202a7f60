"""The streams that are not closed, and what stream identifiers tell of all others (RFC 9113 §5.1, §5.1.1).

No memory is kept of a closed stream. A frame for one is forgiven if we may have reset it, so that the peer
could not know when it sent the frame: up to the highest stream that we have reset. Beyond, the peer has ended
the stream itself, or has skipped it, which closes it too.
"""

from extproc.h2.faults import ErrorCode, FatalError
from extproc.h2.stream import Stream


class StreamTable:
    """`live` holds a stream until both sides have ended it, or one has reset it."""

    __slots__ = ("highest", "highest_accepted", "highest_reset", "is_draining", "is_refusing", "live")

    def __init__(self) -> None:
        self.live: dict[int, Stream] = {}
        self.highest = self.highest_accepted = self.highest_reset = 0
        self.is_draining = self.is_refusing = False

    def find(self, stream_id: int) -> Stream | None:
        """None: closed. An idle stream, which all even ones are, must not be spoken of (§5.1)."""
        stream = self.live.get(stream_id)
        if stream is None and (stream_id > self.highest or not stream_id & 1):
            raise FatalError(ErrorCode.PROTOCOL_ERROR, "frame on an idle stream")
        return stream

    def forgive(self, stream_id: int) -> None:
        """Content on a closed stream is an error, unless the peer could not know (§5.1)."""
        if stream_id > self.highest_reset:
            raise FatalError(ErrorCode.STREAM_CLOSED, "frame on a closed stream")
