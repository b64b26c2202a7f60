"""One stream that is not closed (RFC 9113 §5.1): open, or half closed on either side."""

from extproc.h2.faults import ErrorCode, StreamError
from extproc.h2.flow import ReceiveWindow


class Stream:
    """What must be known of a stream; there is an object for every stream of which a side has not ended."""

    __slots__ = (
        "is_answered",  # we have sent headers
        "is_ending",  # we have been told to end it; nothing more will be given to send
        "is_received",  # half closed (remote): the peer has ended its side
        "is_reset_when_sent",  # §8.1: the answer is complete before the request
        "is_sent",  # half closed (local): our END_STREAM is out
        "queue",  # data that the peer's windows do not admit yet
        "receive_window",
        "send_window",  # may be negative, §6.9.2
        "stream_id",
        "trailers",  # a header block that waits behind the queue
        "unreceived_bytes",  # of the content-length; None without one
    )

    def __init__(
        self, stream_id: int, send_window: int, receive_window_bytes: int, content_bytes: int | None
    ) -> None:
        self.stream_id = stream_id
        self.send_window = send_window
        self.receive_window = ReceiveWindow(receive_window_bytes)
        self.unreceived_bytes = content_bytes
        self.queue: bytearray | None = None
        self.trailers: bytes | None = None
        self.is_received = self.is_sent = False
        self.is_answered = self.is_ending = self.is_reset_when_sent = False

    def count_content(self, size: int, *, ends: bool) -> None:
        """§8.1.1: all DATA together is as long as the content-length says."""
        left = (self.unreceived_bytes or 0) - size
        if left < 0 or (ends and left > 0):
            raise StreamError(self.stream_id, ErrorCode.PROTOCOL_ERROR)
        self.unreceived_bytes = left
