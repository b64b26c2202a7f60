"""The server's side of an HTTP/2 connection (RFC 9113), without I/O and without a clock.

    receive(bytes) -> events        send_headers, send_data, reset, go_away -> data_to_send()

For the protocol around it:

- After every call, write `data_to_send()`. While the transport is paused, leave the data here: it is bounded
  by `Limits.max_unsent_bytes`. Once `is_closed`, write what there is and close the transport.
- Calls other than `receive` can also cause events: a queue that overflows, the last stream of a drain. The
  next `receive` returns them, and `receive(b"", now_s)` fetches them.
- `connection_lost()` returns the events that remain when the transport is gone.
- `reset` causes no StreamClosed: the side that resets knows of it. `reset(id, NO_ERROR)` after an answer with
`end_stream`
  waits until the answer is sent (§8.1), and events of the stream may still come until then; on a stream that
  both sides have ended it does nothing.
- `go_away()` drains: a first GOAWAY lets new streams through for one round trip, a second refuses them, and
  after the last open stream `is_closed` becomes true. A deadline for that is the protocol's to set.
"""

from extproc.h2.events import ConnectionEnded, ErrorCode, Event, FatalError, StreamClosed, StreamError
from extproc.h2.frames import MAX_STREAM_ID, PING, frame, goaway, server_preface
from extproc.h2.h2_limits import USUAL_LIMITS, Limits
from extproc.h2.receiving import DRAIN_PING, Receiver
from extproc.h2.sending import Sender
from extproc.h2.stream import StreamTable


class ServerConnection:
    """One connection, from its first byte to its last."""

    def __init__(self, limits: Limits = USUAL_LIMITS) -> None:
        self.is_closed = False
        self._max_unsent_bytes = limits.max_unsent_bytes
        self._events: list[Event] = []
        self._streams = StreamTable()
        self._sender = Sender(self._streams, limits.max_stream_queue_bytes)
        self._receiver = Receiver(limits, self._streams, self._sender, self._events)
        self._sender.out += server_preface(limits)

    @property
    def open_streams(self) -> int:
        """Streams that at least one side has not ended."""
        return len(self._streams.live)

    def receive(self, data: bytes, now_s: float) -> list[Event]:
        """Take bytes; never raises for what a peer sends. `now_s` is monotonic."""
        if not self.is_closed:
            try:
                self._receiver.receive(data, now_s)
            except FatalError as fault:
                self._fail(fault.code, fault.reason)
            self._settle()
        events = self._events.copy()
        self._events.clear()
        return events

    def data_to_send(self) -> bytes:
        """Return all that is to be written; empties it."""
        data = bytes(self._sender.out)
        self._sender.out.clear()
        return data

    def send_headers(self, stream_id: int, block: bytes, end_stream: bool = False) -> None:
        """Send the answer's headers or trailers; `block` is an HPACK block without a dynamic table."""
        stream = self._streams.live.get(stream_id)
        if stream is not None and not stream.is_ending:
            self._sender.send_headers(stream, block, end_stream=end_stream)
            if end_stream:
                self._settle()

    def send_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Send data; what the windows do not admit waits, too much resets the stream."""
        stream, sender = self._streams.live.get(stream_id), self._sender
        if stream is not None and not stream.is_ending:
            try:
                sender.send_data(stream, data, end_stream)
            except StreamError as fault:
                sender.reset(stream_id, fault.code)
                self._events.append(StreamClosed(stream_id, fault.code))
            if end_stream or len(sender.out) + sender.queued_bytes > self._max_unsent_bytes:
                self._settle()

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """End a stream at once; with NO_ERROR, once its answer has been sent."""
        stream = self._streams.live.get(stream_id)
        if stream is None:
            return
        if code == ErrorCode.NO_ERROR and stream.is_ending and not stream.is_sent:
            stream.is_reset_when_sent = True
        else:
            self._sender.reset(stream_id, code)
        self._settle()

    def go_away(self, code: ErrorCode = ErrorCode.NO_ERROR) -> None:
        """Drain, as §6.8 advises; with another code, end the connection at once."""
        if self.is_closed:
            return
        if code != ErrorCode.NO_ERROR:
            self._fail(code, "ended by the server")
        elif not self._streams.is_draining:
            self._streams.is_draining = True
            self._sender.out += goaway(MAX_STREAM_ID, code) + frame(PING, 0, 0, DRAIN_PING)

    def connection_lost(self) -> list[Event]:
        """Close all streams: the transport is gone."""
        if not self.is_closed:
            self._end(ErrorCode.NO_ERROR, "connection lost")
        self._sender.out.clear()
        return self.receive(b"", 0.0)

    def _settle(self) -> None:
        """Handle a peer that does not read, and the end of a drain; any call can lead to either."""
        sender, streams = self._sender, self._streams
        if len(sender.out) + sender.queued_bytes > self._max_unsent_bytes:
            sender.out.clear()
            self._fail(ErrorCode.ENHANCE_YOUR_CALM, "data is not read")
        elif streams.is_refusing and not streams.live and not self.is_closed:
            self._end(ErrorCode.NO_ERROR, "drained")

    def _fail(self, code: ErrorCode, reason: str) -> None:
        """End the connection with an error (§5.4.1)."""
        self._sender.out += goaway(self._streams.highest_accepted, code, reason)
        self._end(code, reason)

    def _end(self, code: ErrorCode, reason: str) -> None:
        self.is_closed = True
        self._events.extend(StreamClosed(stream_id, None) for stream_id in self._streams.live)
        self._events.append(ConnectionEnded(code, reason))
        self._sender.forget_all()
