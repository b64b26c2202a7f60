"""The bytes to write, and those that the peer's windows hold back (RFC 9113 §5.2, §6.9).

A stream that is held back by its own window waits for its own WINDOW_UPDATE. Those held back by the
connection's window stand in line, so that a WINDOW_UPDATE costs no more than what it lets through.
"""

from collections import OrderedDict

from extproc.h2 import frames
from extproc.h2.events import ErrorCode, FatalError, StreamError
from extproc.h2.stream import INITIAL_WINDOW, MAX_WINDOW, Stream, StreamTable

_pack_header = frames.HEADER.pack
_EMPTY_TABLE = b"\x20"  # RFC 7541 §6.3: a dynamic table size update to 0


class Sender:
    """A connection's sending side: `out` is to be written, `queued_bytes` wait for the peer's windows."""

    def __init__(self, streams: StreamTable, max_stream_queue_bytes: int) -> None:
        self.out = bytearray()
        self.initial_window = INITIAL_WINDOW
        self._streams = streams
        self._max_stream_queue_bytes = max_stream_queue_bytes
        self._window = INITIAL_WINDOW
        self._peer_max_frame = frames.DEFAULT_MAX_FRAME
        self._peer_table_bytes = frames.DEFAULT_TABLE_BYTES
        self._block_prefix = b""
        self.queued_bytes = 0
        self._waiting: OrderedDict[int, Stream] = OrderedDict()

    def send_headers(self, stream: Stream, block: bytes, *, end_stream: bool) -> None:
        """Send headers, which are not flow-controlled, but trailers stay behind the data."""
        stream.is_answered = True
        stream.is_ending = end_stream
        if stream.queue:
            stream.trailers = block
        else:
            self._write_headers(stream, block)

    def send_data(self, stream: Stream, data: bytes, end_stream: bool) -> None:
        """Send data; raises StreamError if more waits than a stream may hold back."""
        size, out = len(data), self.out
        stream.is_ending = end_stream
        if size > stream.send_window or size > self._window or size > self._peer_max_frame or stream.queue:
            self._enqueue(stream, data)
            return
        stream.send_window -= size
        self._window -= size
        out += _pack_header(size << 8 | frames.DATA, end_stream, stream.stream_id)
        out += data
        if end_stream:
            self._end(stream)

    def widen(self, increment: int) -> None:
        """Send WINDOW_UPDATE for the connection."""
        self._window += increment
        if self._window > MAX_WINDOW:
            raise FatalError(ErrorCode.FLOW_CONTROL_ERROR, "connection window over 2^31-1")
        while self._waiting and self._window > 0:
            self._flush(self._waiting.popitem(last=False)[1])

    def widen_stream(self, stream: Stream, increment: int) -> None:
        """Send WINDOW_UPDATE for a stream."""
        stream.send_window += increment
        if stream.send_window > MAX_WINDOW:
            raise StreamError(stream.stream_id, ErrorCode.FLOW_CONTROL_ERROR)
        if stream.queue is not None:
            self._flush(stream)

    def apply(self, peer_settings: list[tuple[int, int]]) -> None:
        """Apply all settings, acknowledge them, and only then send what they admit (§6.5.3).

        Those for pushes, and the advice on header lists, do not concern us.
        """
        for setting, value in peer_settings:
            if setting == frames.INITIAL_WINDOW_SIZE:
                self._resize_windows(value)
            elif setting == frames.MAX_FRAME_SIZE:
                self._peer_max_frame = value
            elif setting == frames.HEADER_TABLE_SIZE:
                if value < self._peer_table_bytes:  # §4.3.1: the next block must say so
                    self._block_prefix = _EMPTY_TABLE
                self._peer_table_bytes = value
        self.out += frames.frame(frames.SETTINGS, frames.ACK, 0)
        for stream in [stream for stream in self._streams.live.values() if stream.queue is not None]:
            self._flush(stream)

    def reset(self, stream_id: int, code: ErrorCode) -> bool:
        """Send RST_STREAM; returns whether the stream was there."""
        self.out += frames.rst_stream(stream_id, code)
        self._streams.highest_reset = max(self._streams.highest_reset, stream_id)
        return self.forget(stream_id) is not None

    def forget(self, stream_id: int) -> Stream | None:
        """Forget a stream that is gone, and its waiting data."""
        stream = self._streams.live.pop(stream_id, None)
        if stream is not None and stream.queue is not None:
            self.queued_bytes -= len(stream.queue)
            self._waiting.pop(stream_id, None)
        return stream

    def forget_all(self) -> None:
        """Forget all streams: the connection is over."""
        self._streams.live.clear()
        self.queued_bytes = 0
        self._waiting.clear()

    def _resize_windows(self, initial_window: int) -> None:
        """Change the windows of all open streams by the difference, perhaps below zero (§6.9.2)."""
        increment = initial_window - self.initial_window
        self.initial_window = initial_window
        for stream in self._streams.live.values():
            stream.send_window += increment
            if stream.send_window > MAX_WINDOW:
                raise FatalError(ErrorCode.FLOW_CONTROL_ERROR, "stream window over 2^31-1")

    def _enqueue(self, stream: Stream, data: bytes) -> None:
        if stream.queue is None:
            stream.queue = bytearray()
        stream.queue += data
        self.queued_bytes += len(data)
        self._flush(stream)
        if stream.queue is not None and len(stream.queue) > self._max_stream_queue_bytes:
            raise StreamError(stream.stream_id, ErrorCode.ENHANCE_YOUR_CALM)

    def _flush(self, stream: Stream) -> None:
        queue = stream.queue
        while queue:
            size = min(len(queue), stream.send_window, self._window, self._peer_max_frame)
            if size <= 0:
                if stream.send_window > 0:
                    self._waiting[stream.stream_id] = stream
                return
            stream.send_window -= size
            self._window -= size
            self.queued_bytes -= size
            self.out += frames.frame(frames.DATA, 0, stream.stream_id, queue[:size])
            del queue[:size]
        stream.queue = None
        if stream.trailers is not None:
            self._write_headers(stream, stream.trailers)
        elif stream.is_ending:  # §6.9.1: an empty frame needs no window
            self.out += frames.frame(frames.DATA, frames.END_STREAM, stream.stream_id)
            self._end(stream)

    def _write_headers(self, stream: Stream, block: bytes) -> None:
        """Write one block, in as many frames as the peer's MAX_FRAME_SIZE asks for (§4.3, §6.10)."""
        if self._block_prefix:
            block, self._block_prefix = self._block_prefix + block, b""
        flags, size = int(stream.is_ending), self._peer_max_frame
        if len(block) <= size:
            size_and_kind = len(block) << 8 | frames.HEADERS
            self.out += (
                frames.HEADER.pack(size_and_kind, flags | frames.END_HEADERS, stream.stream_id) + block
            )
        else:
            self.out += frames.frame(frames.HEADERS, flags, stream.stream_id, block[:size])
            for start in range(size, len(block), size):
                last = frames.END_HEADERS if start + size >= len(block) else 0
                self.out += frames.frame(
                    frames.CONTINUATION, last, stream.stream_id, block[start : start + size]
                )
        if stream.is_ending:
            self._end(stream)

    def _end(self, stream: Stream) -> None:
        """Half-close the stream (local), or close it if the peer has ended before (§5.1)."""
        stream.is_sent = True
        if stream.is_received:
            del self._streams.live[stream.stream_id]
        elif stream.is_reset_when_sent:
            self.out += frames.rst_stream(stream.stream_id, ErrorCode.NO_ERROR)
            del self._streams.live[stream.stream_id]
