"""The meaning of each frame of a client (RFC 9113 §6, in the order of its sections).

A handler changes the streams, queues answers and appends events, or raises the fault that the RFC names.
"""

from collections.abc import Callable
from typing import Final

from extproc.h2 import frames
from extproc.h2.events import (
    DataReceived,
    ErrorCode,
    Event,
    FatalError,
    StreamClosed,
    StreamEnded,
    StreamError,
    StreamOpened,
    error_code,
)
from extproc.h2.frames import END_HEADERS, END_STREAM, HAS_PRIORITY, PADDED, FrameReader, read_settings
from extproc.h2.h2_limits import Budget, Limits
from extproc.h2.headers import BlockDecoder, PartialBlock, Section
from extproc.h2.sending import Sender
from extproc.h2.stream import MAX_WINDOW, ReceiveWindow, Stream, StreamTable

DRAIN_PING: Final = b"draining"  # its answer tells that the peer has read our first GOAWAY (§6.8)

_NOT_CONTENT: Final = PADDED | HAS_PRIORITY

_STREAMS_PER_CONTROL_FRAME: Final = 64
"""A setting may touch every stream: it counts as one more frame for this many of them."""


class Receiver:
    """The receiving side of a connection; its events go to the end of `events`."""

    def __init__(self, limits: Limits, streams: StreamTable, sender: Sender, events: list[Event]) -> None:
        self._limits = limits
        self._streams = streams
        self._live = streams.live
        self._sender = sender
        self._events = events
        self._reader = FrameReader(limits.max_frame_bytes)
        self._decoder = BlockDecoder(limits.max_header_list_bytes)
        self._window = ReceiveWindow(limits.connection_window_bytes)
        self._stream_bytes = limits.stream_window_bytes
        self._stream_half = limits.stream_window_bytes >> 1
        self._control = Budget("control frames", limits.control_frames_burst, limits.control_frames_per_s)
        self._resets = Budget("streams reset", limits.resets_burst, limits.resets_per_s)
        self._now_s = 0.0
        self._expected: int | None = frames.SETTINGS  # §3.4; later CONTINUATION within a header block, §4.3
        self._partial = PartialBlock(0, 0, b"")

    def receive(self, data: bytes, now_s: float) -> None:
        """Take bytes; raises FatalError. Errors of one stream are settled here (§5.4.2)."""
        self._now_s = now_s
        for kind, flags, stream_id, payload in self._reader.read(data):
            if self._expected is not None and kind != self._expected:
                raise FatalError(ErrorCode.PROTOCOL_ERROR, "another type of frame was due")
            try:
                _HANDLERS[kind](self, flags, stream_id, payload)
            except StreamError as fault:
                if self._sender.reset(fault.stream_id, fault.code):
                    self._events.append(StreamClosed(fault.stream_id, fault.code))
                self._resets.spend(self._now_s)

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Receive DATA (§6.1). Padding and data of closed streams use the connection's window, too (§6.9)."""
        stream = self._live.get(stream_id) or self._streams.find(stream_id)
        size, window, ends = len(payload), self._window, flags & END_STREAM != 0
        window.left -= size
        if window.left <= window.half:
            self._refill()
        if flags & PADDED:
            payload = frames.content(PADDED, payload)
        if not payload and not ends:
            self._control.spend(self._now_s)
        if stream is None:
            self._streams.forgive(stream_id)
            return
        if stream.is_received:
            raise StreamError(stream_id, ErrorCode.STREAM_CLOSED)
        if stream.unreceived_bytes is not None:
            stream.count_content(len(payload), ends=ends)
        stream.receive_left -= size
        if stream.receive_left <= self._stream_half:
            self._refill_stream(stream, ends=ends)
        if ends:
            self._end(stream)
        if payload or ends:
            self._events.append(DataReceived(stream_id, payload, ends))

    def _refill(self) -> None:
        """Fill the connection's window again, of which half is used."""
        if self._window.left < 0:
            raise FatalError(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window")
        self._sender.out += frames.window_update(0, self._window.refill())

    def _refill_stream(self, stream: Stream, *, ends: bool) -> None:
        """Fill a stream's window again, of which half is used, unless nothing more comes."""
        if stream.receive_left < 0:
            raise StreamError(stream.stream_id, ErrorCode.FLOW_CONTROL_ERROR)
        if not ends:
            increment = self._stream_bytes - stream.receive_left
            self._sender.out += frames.window_update(stream.stream_id, increment)
            stream.receive_left = self._stream_bytes

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Receive HEADERS (§6.2). The priority fields are skipped (§5.3.2)."""
        if not stream_id & 1:
            raise FatalError(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream that no client opens")
        if flags & _NOT_CONTENT:
            payload = frames.content(flags, payload)
        if flags & END_HEADERS:
            self._on_block(stream_id, payload, ends=flags & END_STREAM != 0)
        else:
            self._partial = PartialBlock(stream_id, flags, payload)
            self._expected = frames.CONTINUATION

    def _on_block(self, stream_id: int, block: bytes, *, ends: bool) -> None:
        """Receive a header block: a request, or its trailers (§8.1). It is decoded in any case (§4.3)."""
        section = self._decoder.decode(block)
        stream = self._live.get(stream_id)
        if stream is not None:
            self._take_trailers(stream, section, ends=ends)
        elif stream_id > self._streams.highest:
            self._open(stream_id, section, ends=ends)
        else:
            self._control.spend(self._now_s)
            self._streams.forgive(stream_id)

    def _open(self, stream_id: int, section: Section, *, ends: bool) -> None:
        streams = self._streams
        streams.highest = stream_id
        if streams.is_refusing or len(self._live) >= self._limits.max_concurrent_streams:  # §5.1.2
            raise StreamError(stream_id, ErrorCode.REFUSED_STREAM)
        if not section.is_request or (ends and section.content_bytes):  # §8.1.1
            raise StreamError(stream_id, ErrorCode.PROTOCOL_ERROR)
        streams.highest_accepted = stream_id
        send_window = self._sender.initial_window
        stream = Stream(stream_id, send_window, self._stream_bytes, section.content_bytes, is_received=ends)
        self._live[stream_id] = stream
        self._events.append(StreamOpened(stream_id, section.fields, ends))

    def _take_trailers(self, stream: Stream, section: Section, *, ends: bool) -> None:
        if stream.is_received:
            raise StreamError(stream.stream_id, ErrorCode.STREAM_CLOSED)
        if not ends or not section.is_trailers:
            raise StreamError(stream.stream_id, ErrorCode.PROTOCOL_ERROR)
        if stream.unreceived_bytes is not None:
            stream.count_content(0, ends=True)
        self._end(stream)
        self._events.append(StreamEnded(stream.stream_id))

    def _end(self, stream: Stream) -> None:
        """Half-close the stream (remote), or close it if our side has ended before (§5.1)."""
        stream.is_received = True
        if stream.is_sent:
            del self._live[stream.stream_id]

    def _on_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """Ignore a valid PRIORITY (§6.3). Without a stream to reset, the error is the connection's."""
        if stream_id == 0:
            raise FatalError(ErrorCode.PROTOCOL_ERROR, "PRIORITY without a stream")
        if len(payload) != 5:
            if stream_id in self._live:
                raise StreamError(stream_id, ErrorCode.FRAME_SIZE_ERROR)
            raise FatalError(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY must have 5 octets")
        self._control.spend(self._now_s)

    def _on_rst_stream(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """Receive RST_STREAM (§6.4). On a closed stream it may have crossed our own end of it (§5.1)."""
        code = error_code(frames.uint32(payload))
        stream = self._sender.forget(stream_id)
        if stream is None:
            self._streams.find(stream_id)
            return
        self._events.append(StreamClosed(stream_id, code))
        if not stream.is_answered and stream.receive_left == self._stream_bytes:
            self._resets.spend(self._now_s)

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Receive SETTINGS (§6.5). The first frame of a client must be one, and no acknowledgement (§3.4)."""
        if stream_id:
            raise FatalError(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        self._control.spend(self._now_s)
        if flags & frames.ACK:
            if payload:
                raise FatalError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS acknowledged with a payload")
            if self._expected is not None:
                raise FatalError(ErrorCode.PROTOCOL_ERROR, "the first SETTINGS is an acknowledgement")
            self._decoder.forbid_table()
            return
        self._expected = None
        settings = read_settings(payload)
        self._control.spend(self._now_s, len(settings) * len(self._live) / _STREAMS_PER_CONTROL_FRAME)
        self._sender.apply(settings)

    def _on_push_promise(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        """Refuse PUSH_PROMISE: a client cannot push (§8.4)."""
        raise FatalError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Receive PING (§6.7)."""
        if stream_id:
            raise FatalError(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise FatalError(ErrorCode.FRAME_SIZE_ERROR, "PING must have 8 octets")
        self._control.spend(self._now_s)
        if not flags & frames.ACK:
            self._sender.out += frames.frame(frames.PING, frames.ACK, 0, payload)
        elif payload == DRAIN_PING and self._streams.is_draining and not self._streams.is_refusing:
            self._streams.is_refusing = True
            self._sender.out += frames.goaway(self._streams.highest_accepted, ErrorCode.NO_ERROR)

    def _on_goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """Receive GOAWAY (§6.8): it is about streams that we would open; the client's own go on."""
        if stream_id:
            raise FatalError(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise FatalError(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY must have 8 octets")
        self._control.spend(self._now_s)

    def _on_window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """Receive WINDOW_UPDATE (§6.9)."""
        increment = frames.uint32(payload) & MAX_WINDOW
        if stream_id == 0:
            if increment == 0:
                raise FatalError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            self._sender.widen(increment)
        elif (stream := self._streams.find(stream_id)) is not None:
            if increment == 0:
                raise StreamError(stream_id, ErrorCode.PROTOCOL_ERROR)
            self._sender.widen_stream(stream, increment)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Receive CONTINUATION (§6.10), neither many frames nor many octets (CVE-2024-27316 and similar)."""
        partial = self._partial
        if self._expected is None or stream_id != partial.stream_id:
            raise FatalError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of no header block")
        partial.continuations += 1
        partial.block += payload
        if partial.continuations > self._limits.max_continuations:
            raise FatalError(ErrorCode.ENHANCE_YOUR_CALM, "header block in too many frames")
        if len(partial.block) > self._limits.max_header_list_bytes:
            raise FatalError(ErrorCode.ENHANCE_YOUR_CALM, "header block too large")
        if flags & END_HEADERS:
            self._expected = None
            self._on_block(stream_id, partial.block, ends=partial.flags & END_STREAM != 0)

    def _on_unknown(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        """Ignore a frame of an unknown type (§4.1, §5.5)."""
        self._control.spend(self._now_s)


_HANDLERS: Final[tuple[Callable[[Receiver, int, int, bytes], None], ...]] = (
    Receiver._on_data,
    Receiver._on_headers,
    Receiver._on_priority,
    Receiver._on_rst_stream,
    Receiver._on_settings,
    Receiver._on_push_promise,
    Receiver._on_ping,
    Receiver._on_goaway,
    Receiver._on_window_update,
    Receiver._on_continuation,
    *[Receiver._on_unknown] * (256 - 10),
)
"""By type of frame (§11.2)."""
