"""Claims about RFC 9113 by its sections, frame by frame."""

import h2.events
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.h2_frame_client import (
    ANSWER,
    FIELDS,
    REQUEST,
    SETTINGS_ACK,
    TRAILERS,
    H2Client,
    Peer,
    data,
    headers,
    settings,
)

from extproc.h2 import frames
from extproc.h2.connection import ServerConnection
from extproc.h2.events import (
    ConnectionEnded,
    DataReceived,
    ErrorCode,
    StreamClosed,
    StreamEnded,
    StreamOpened,
)
from extproc.h2.frames import PREFACE
from extproc.h2.h2_limits import Limits

END = frames.END_STREAM
END_HEADERS = frames.END_HEADERS
PROTOCOL_ERROR = ErrorCode.PROTOCOL_ERROR


def test_exchange_of_ext_proc_goes_through_both_ways() -> None:
    peer = H2Client()
    peer.client.send_headers(1, FIELDS)
    peer.client.send_data(1, b"headers message")
    peer.exchange()
    peer.server.send_headers(1, ANSWER)
    peer.server.send_data(1, b"headers answer")
    peer.to_client()
    peer.client.send_data(1, b"body message", end_stream=True)
    peer.exchange()
    peer.server.send_data(1, b"body answer")
    peer.server.send_headers(1, TRAILERS, end_stream=True)
    peer.to_client()
    assert peer.events == [
        StreamOpened(1, FIELDS, False),
        DataReceived(1, b"headers message", False),
        DataReceived(1, b"body message", True),
    ]
    got = [event for event in peer.received if getattr(event, "stream_id", 0) == 1]
    assert [event.data for event in got if isinstance(event, h2.events.DataReceived)] == [
        b"headers answer",
        b"body answer",
    ]
    assert [(b"grpc-status", b"0")] in [
        list(event.headers) for event in got if isinstance(event, h2.events.TrailersReceived)
    ]
    assert peer.server.open_streams == 0


def test_settings_tell_a_client_what_it_may_do() -> None:
    peer = H2Client(Limits(max_concurrent_streams=7))
    remote = peer.client.remote_settings
    assert remote.header_table_size == 0
    assert remote.max_concurrent_streams == 7
    assert remote.initial_window_size >= 32 * 2**20
    assert remote.max_frame_size == 16_384
    assert remote.max_header_list_size == 16_384


def test_a_client_that_speaks_tls_is_named_in_the_error() -> None:
    (ended,) = ServerConnection().receive(b"\x16\x03\x01\x02\x00", 0.0)
    assert ended == ConnectionEnded(PROTOCOL_ERROR, "not the preface of HTTP/2, but TLS")


@pytest.mark.parametrize("preface", [b"GET / HTTP/1.1\r\n", PREFACE[:20] + b"xxxx", b"\0"])
def test_wrong_preface_is_a_protocol_error(preface: bytes) -> None:
    """§3.4."""
    server = ServerConnection()
    assert server.receive(preface, 0.0) == [ConnectionEnded(PROTOCOL_ERROR, "not the preface of HTTP/2")]
    assert server.is_closed


@pytest.mark.parametrize("first", [frames.frame(frames.PING, 0, 0, bytes(8)), SETTINGS_ACK, headers(1)])
def test_first_frame_must_be_settings(first: bytes) -> None:
    """§3.4."""
    server = ServerConnection()
    events = server.receive(PREFACE + first, 0.0)
    assert isinstance(events[-1], ConnectionEnded)
    assert events[-1].code is PROTOCOL_ERROR


@given(st.lists(st.integers(1, 60), min_size=1), st.booleans())
def test_bytes_may_be_cut_anywhere(cuts: list[int], ends: bool) -> None:
    raw = PREFACE + settings((4, 1)) + headers(1) + data(1, b"abc") + data(1, b"", END if ends else 0)
    server, events, at = ServerConnection(), [], 0
    for cut in [*cuts, len(raw)]:
        events += server.receive(raw[at : at + cut], 0.0)
        at += cut
    events += server.receive(raw[at:], 0.0)
    last = [DataReceived(1, b"", True)] if ends else []
    assert events == [StreamOpened(1, FIELDS, False), DataReceived(1, b"abc", False), *last]


BREACHES = {
    # §4
    "4.2 frame over MAX_FRAME_SIZE": (
        b"\0\x40\x01\0\0" + bytes(4), "connection", ErrorCode.FRAME_SIZE_ERROR),
    "4.3 broken header block": (headers(3, b"\xff"), "connection", ErrorCode.COMPRESSION_ERROR),
    "4.3.1 dynamic table in use": (headers(3, b"\xbe"), "connection", ErrorCode.COMPRESSION_ERROR),
    "4.3.1 dynamic table asked for": (
        headers(3, b"\x3f\x01" + REQUEST), "connection", ErrorCode.COMPRESSION_ERROR),
    # §5.1
    "5.1 DATA on an idle stream": (data(99), "connection", PROTOCOL_ERROR),
    "5.1 RST_STREAM on an idle stream": (
        frames.rst_stream(99, ErrorCode.CANCEL), "connection", PROTOCOL_ERROR),
    "5.1 WINDOW_UPDATE on an idle stream": (frames.window_update(99, 1), "connection", PROTOCOL_ERROR),
    "5.1 DATA after END_STREAM": (data(1, b"", END) + data(1), "stream", ErrorCode.STREAM_CLOSED),
    "5.1 HEADERS after END_STREAM": (
        data(1, b"", END) + headers(1, TRAILERS, END | END_HEADERS), "stream", ErrorCode.STREAM_CLOSED),
    "5.1 DATA after RST_STREAM": (
        frames.rst_stream(1, ErrorCode.CANCEL) + data(1), "connection", ErrorCode.STREAM_CLOSED),
    "5.1 HEADERS after RST_STREAM": (
        frames.rst_stream(1, ErrorCode.CANCEL) + headers(1), "connection", ErrorCode.STREAM_CLOSED),
    "5.1.1 HEADERS on a stream of ours": (headers(2), "connection", PROTOCOL_ERROR),
    "5.1.1 HEADERS on a stream that was skipped": (
        headers(7) + headers(5), "connection", ErrorCode.STREAM_CLOSED),
    # §6
    "6.1 DATA on stream 0": (data(0), "connection", PROTOCOL_ERROR),
    "6.1 padding over the payload": (data(1, b"\x02x", frames.PADDED), "connection", PROTOCOL_ERROR),
    "6.1 no room for the pad length": (
        data(1, b"", frames.PADDED), "connection", ErrorCode.FRAME_SIZE_ERROR),
    "6.2 HEADERS on stream 0": (headers(0), "connection", PROTOCOL_ERROR),
    "6.2 padding over the block": (
        headers(3, b"\xff" + REQUEST, END_HEADERS | frames.PADDED), "connection", PROTOCOL_ERROR),
    "6.2 padding over the block, with priority": (
        headers(3, b"\x01" + bytes(5), END_HEADERS | frames.PADDED | frames.HAS_PRIORITY),
        "connection", PROTOCOL_ERROR),
    "6.2 no room for the priority": (
        headers(3, bytes(4), END_HEADERS | frames.HAS_PRIORITY), "connection", ErrorCode.FRAME_SIZE_ERROR),
    "6.3 PRIORITY on stream 0": (
        frames.frame(frames.PRIORITY, 0, 0, bytes(5)), "connection", PROTOCOL_ERROR),
    "6.3 PRIORITY of another length": (
        frames.frame(frames.PRIORITY, 0, 1, bytes(4)), "stream", ErrorCode.FRAME_SIZE_ERROR),
    "6.3 PRIORITY of another length, idle": (
        frames.frame(frames.PRIORITY, 0, 99, bytes(4)), "connection", ErrorCode.FRAME_SIZE_ERROR),
    "6.4 RST_STREAM on stream 0": (frames.rst_stream(0, ErrorCode.CANCEL), "connection", PROTOCOL_ERROR),
    "6.4 RST_STREAM of another length": (
        frames.frame(frames.RST_STREAM, 0, 1, bytes(3)), "connection", ErrorCode.FRAME_SIZE_ERROR),
    "6.5 SETTINGS on a stream": (
        frames.frame(frames.SETTINGS, 0, 1), "connection", PROTOCOL_ERROR),
    "6.5 SETTINGS of a broken length": (
        frames.frame(frames.SETTINGS, 0, 0, bytes(5)), "connection", ErrorCode.FRAME_SIZE_ERROR),
    "6.5 acknowledgement with a payload": (
        frames.frame(frames.SETTINGS, frames.ACK, 0, bytes(6)), "connection", ErrorCode.FRAME_SIZE_ERROR),
    "6.5.2 ENABLE_PUSH of 2": (settings((2, 2)), "connection", PROTOCOL_ERROR),
    "6.5.2 window over 2^31-1": (settings((4, 2**31)), "connection", ErrorCode.FLOW_CONTROL_ERROR),
    "6.5.2 MAX_FRAME_SIZE too small": (settings((5, 16_383)), "connection", PROTOCOL_ERROR),
    "6.5.2 MAX_FRAME_SIZE too large": (settings((5, 2**24)), "connection", PROTOCOL_ERROR),
    "6.6 PUSH_PROMISE": (
        frames.frame(frames.PUSH_PROMISE, END_HEADERS, 1, bytes(4)), "connection", PROTOCOL_ERROR),
    "6.7 PING on a stream": (frames.frame(frames.PING, 0, 1, bytes(8)), "connection", PROTOCOL_ERROR),
    "6.7 PING of another length": (
        frames.frame(frames.PING, 0, 0, bytes(7)), "connection", ErrorCode.FRAME_SIZE_ERROR),
    "6.8 GOAWAY on a stream": (frames.frame(frames.GOAWAY, 0, 1, bytes(8)), "connection", PROTOCOL_ERROR),
    "6.8 GOAWAY too short": (
        frames.frame(frames.GOAWAY, 0, 0, bytes(7)), "connection", ErrorCode.FRAME_SIZE_ERROR),
    "6.9 increment of 0": (frames.window_update(1, 0), "stream", PROTOCOL_ERROR),
    "6.9 increment of 0 on the connection": (frames.window_update(0, 0), "connection", PROTOCOL_ERROR),
    "6.9 WINDOW_UPDATE of another length": (
        frames.frame(frames.WINDOW_UPDATE, 0, 0, bytes(5)), "connection", ErrorCode.FRAME_SIZE_ERROR),
    "6.9.1 window of a stream over 2^31-1": (
        frames.window_update(1, 2**31 - 1), "stream", ErrorCode.FLOW_CONTROL_ERROR),
    "6.9.1 window of the connection over 2^31-1": (
        frames.window_update(0, 2**31 - 1), "connection", ErrorCode.FLOW_CONTROL_ERROR),
    "6.9.2 window of a stream over 2^31-1 by SETTINGS": (
        frames.window_update(1, 2**30) + settings((4, 2**31 - 1)),
        "connection", ErrorCode.FLOW_CONTROL_ERROR),
    "6.10 CONTINUATION of nothing": (
        frames.frame(frames.CONTINUATION, END_HEADERS, 1, b""), "connection", PROTOCOL_ERROR),
    "6.10 CONTINUATION on another stream": (
        headers(3, REQUEST, 0) + frames.frame(frames.CONTINUATION, END_HEADERS, 5, b""),
        "connection", PROTOCOL_ERROR),
    "6.10 another frame within a header block": (
        headers(3, REQUEST, 0) + data(1), "connection", PROTOCOL_ERROR),
    "6.10 an unknown frame within a header block": (
        headers(3, REQUEST, 0) + frames.frame(99, 0, 3), "connection", PROTOCOL_ERROR),
    # §8.1
    "8.1 trailers without END_STREAM": (headers(1, TRAILERS), "stream", PROTOCOL_ERROR),
    "8.1 trailers with a pseudo-header": (
        headers(1, REQUEST, END | END_HEADERS), "stream", PROTOCOL_ERROR),
}  # fmt: skip


@pytest.mark.parametrize("breach", BREACHES)
def test_breach_is_answered_with_its_error(breach: str) -> None:
    raw, scope, code = BREACHES[breach]
    peer = Peer()
    peer.send(headers(1))
    assert peer.verdict(raw) == (scope, code)
    closed = [event for event in peer.events if isinstance(event, StreamClosed) and event.stream_id == 1]
    assert len(closed) == (scope == "connection" or peer.server.open_streams == 0)


def test_after_a_connection_error_nothing_is_taken_and_nothing_is_sent() -> None:
    """§5.4.1."""
    peer = Peer()
    peer.send(headers(1) + headers(3))
    peer.verdict(data(0))
    assert peer.events == [
        StreamClosed(1, None),
        StreamClosed(3, None),
        ConnectionEnded(PROTOCOL_ERROR, "frame on an idle stream"),
    ]
    peer.server.send_headers(1, ANSWER)
    peer.server.send_data(1, b"x")
    peer.server.reset(1, ErrorCode.CANCEL)
    peer.server.go_away()
    assert peer.send(headers(5)) == []
    assert peer.events == []
    assert peer.server.connection_lost() == []


def test_goaway_names_the_last_stream_that_was_taken() -> None:
    """§6.8; the second request is malformed, so it was not."""
    peer = Peer()
    peer.send(headers(1) + headers(3, TRAILERS))
    (goaway,) = peer.send(data(0))
    assert goaway[3][:8] == (1).to_bytes(4) + PROTOCOL_ERROR.to_bytes(4)


def test_stream_error_leaves_the_others_alone() -> None:
    """§5.4.2."""
    peer = Peer()
    peer.send(headers(1) + headers(3))
    assert peer.verdict(frames.window_update(1, 0)) == ("stream", PROTOCOL_ERROR)
    assert peer.events == [StreamClosed(1, PROTOCOL_ERROR)]
    assert peer.send(data(3)) == []
    assert peer.events == [DataReceived(3, b"x", False)]


def test_frames_of_a_stream_that_we_have_reset_are_ignored() -> None:
    """§5.1: they may have been under way."""
    peer = Peer()
    peer.send(headers(1))
    peer.server.reset(1, ErrorCode.CANCEL)
    assert peer.read() == [(frames.RST_STREAM, 0, 1, b"\0\0\0\x08")]
    late = data(1) + headers(1, TRAILERS, END | END_HEADERS) + frames.window_update(1, 5)
    assert peer.send(late + frames.rst_stream(1, ErrorCode.CANCEL)) == []
    assert peer.events == []


def test_frames_that_may_cross_the_end_of_a_stream_are_ignored() -> None:
    """§5.1: WINDOW_UPDATE, RST_STREAM and PRIORITY."""
    peer = Peer()
    peer.send(headers(1, REQUEST, END | END_HEADERS))
    peer.server.send_headers(1, TRAILERS, end_stream=True)
    peer.read()
    late = frames.window_update(1, 5) + frames.frame(frames.PRIORITY, 0, 1, bytes(5))
    assert peer.send(late + frames.rst_stream(1, ErrorCode.CANCEL)) == []
    assert peer.events == []


def test_unknown_frames_and_settings_are_ignored() -> None:
    """§4.1, §6.5.2."""
    peer = Peer()
    assert peer.send(frames.frame(0xF0, 0xFF, 5, b"abc") + headers(1)) == []
    assert peer.send(settings((0xF0, 1))) == [(frames.SETTINGS, frames.ACK, 0, b"")]


def test_reserved_bits_are_ignored() -> None:
    """§4.1, §6.9."""
    peer = Peer()
    raw = bytearray(headers(1))
    raw[5] |= 0x80
    peer.send(bytes(raw))
    assert peer.events == [StreamOpened(1, FIELDS, False)]
    assert peer.verdict(frames.frame(frames.WINDOW_UPDATE, 0, 1, b"\x80\0\0\x01")) is None


def test_padding_and_priority_are_not_handed_on() -> None:
    """§6.1, §6.2."""
    peer = Peer()
    padded = b"\x03" + bytes(5) + REQUEST + bytes(3)
    peer.send(headers(1, padded, END_HEADERS | frames.PADDED | frames.HAS_PRIORITY))
    peer.send(data(1, b"\x02abcxx", frames.PADDED))
    assert peer.events == [DataReceived(1, b"abc", False)]


def test_header_block_may_come_in_pieces() -> None:
    """§6.10."""
    peer = Peer()
    peer.send(headers(1, REQUEST[:5], END))
    peer.send(frames.frame(frames.CONTINUATION, 0, 1, b""))
    peer.send(frames.frame(frames.CONTINUATION, END_HEADERS, 1, REQUEST[5:]))
    assert peer.events == [StreamOpened(1, FIELDS, True)]


def test_trailers_end_a_request() -> None:
    """§8.1."""
    peer = Peer()
    peer.send(headers(1))
    peer.send(headers(1, TRAILERS, END | END_HEADERS))
    assert peer.events == [StreamEnded(1)]


def test_ping_is_answered_with_its_own_octets() -> None:
    """§6.7."""
    peer = Peer()
    assert peer.send(frames.frame(frames.PING, 0, 0, b"12345678")) == [
        (frames.PING, frames.ACK, 0, b"12345678")
    ]
    assert peer.send(frames.frame(frames.PING, frames.ACK, 0, b"12345678")) == []


def test_reset_of_the_peer_tells_its_code() -> None:
    """§6.4, §7: unknown codes are taken for INTERNAL_ERROR."""
    peer = Peer()
    peer.send(headers(1) + headers(3))
    peer.send(frames.rst_stream(1, ErrorCode.CANCEL) + frames.frame(frames.RST_STREAM, 0, 3, b"\0\0\1\0"))
    assert peer.events == [StreamClosed(1, ErrorCode.CANCEL), StreamClosed(3, ErrorCode.INTERNAL_ERROR)]


def test_answer_may_be_complete_before_the_request() -> None:
    """§8.1: the answer, all of it, and then RST_STREAM with NO_ERROR."""
    peer = Peer(Limits(), (4, 3))
    peer.send(headers(1))
    peer.server.send_headers(1, ANSWER)
    peer.server.send_data(1, b"answer")
    peer.server.send_headers(1, TRAILERS, end_stream=True)
    peer.server.reset(1, ErrorCode.NO_ERROR)
    assert [frame[0] for frame in peer.read()] == [frames.HEADERS, frames.DATA]
    sent = peer.send(frames.window_update(1, 10))
    assert [frame[0] for frame in sent] == [frames.DATA, frames.HEADERS, frames.RST_STREAM]
    assert peer.server.open_streams == 0
    assert peer.events == []


def test_reset_drops_what_waits() -> None:
    peer = Peer(Limits(), (4, 3))
    peer.send(headers(1))
    peer.server.send_data(1, b"answer")
    peer.server.reset(1, ErrorCode.CANCEL)
    peer.read()
    assert peer.send(frames.window_update(1, 100)) == []


def test_drain_loses_no_request() -> None:
    """§6.8: what the client has sent before it knew is still taken; later streams are refused."""
    peer = Peer()
    peer.send(headers(1))
    peer.server.go_away()
    goaway, ping = peer.read()
    assert goaway[3][:8] == (2**31 - 1).to_bytes(4) + bytes(4)
    peer.send(headers(3))
    assert peer.events == [StreamOpened(3, FIELDS, False)]
    (last,) = peer.send(frames.frame(frames.PING, frames.ACK, 0, ping[3]))
    assert last[0] == frames.GOAWAY
    assert last[3][:8] == (3).to_bytes(4) + bytes(4)
    assert peer.verdict(headers(5)) == ("stream", ErrorCode.REFUSED_STREAM)
    peer.send(data(1, b"", END) + data(3, b"", END))
    peer.server.send_headers(1, TRAILERS, end_stream=True)
    assert not peer.server.is_closed
    peer.server.send_headers(3, TRAILERS, end_stream=True)
    assert peer.server.is_closed
    assert peer.server.receive(b"", 0.0) == [ConnectionEnded(ErrorCode.NO_ERROR, "drained")]


def test_goaway_with_an_error_ends_the_connection_at_once() -> None:
    peer = Peer()
    peer.send(headers(1))
    peer.server.go_away(ErrorCode.ENHANCE_YOUR_CALM)
    assert peer.server.is_closed
    (goaway,) = peer.send(b"")
    assert goaway[3][4:8] == ErrorCode.ENHANCE_YOUR_CALM.to_bytes(4)
    assert peer.events[0] == StreamClosed(1, None)


def test_goaway_of_the_client_leaves_its_streams_open() -> None:
    """§6.8."""
    peer = Peer()
    peer.send(headers(1))
    assert peer.send(frames.goaway(0, ErrorCode.NO_ERROR)) == []
    peer.send(data(1))
    assert peer.events == [DataReceived(1, b"x", False)]


def test_lost_connection_closes_every_stream_once() -> None:
    peer = Peer()
    peer.send(headers(1) + headers(3, REQUEST, END | END_HEADERS))
    peer.server.send_headers(3, TRAILERS, end_stream=True)
    assert peer.server.connection_lost() == [
        StreamClosed(1, None),
        ConnectionEnded(ErrorCode.NO_ERROR, "connection lost"),
    ]
    assert peer.server.data_to_send() == b""
    assert peer.server.connection_lost() == []


def test_what_is_sent_on_streams_that_are_gone_is_dropped() -> None:
    peer = Peer()
    peer.send(headers(1, REQUEST, END | END_HEADERS))
    peer.server.send_headers(1, TRAILERS, end_stream=True)
    peer.read()
    peer.server.send_headers(1, ANSWER)
    peer.server.send_data(1, b"x")
    peer.server.reset(1, ErrorCode.CANCEL)
    peer.server.reset(99, ErrorCode.CANCEL)
    assert peer.read() == []


def test_twenty_thousand_streams_leave_nothing_behind() -> None:
    peer = Peer(Limits(), (4, 10))
    peer.send(frames.window_update(0, 2**30))
    for stream_id in range(1, 40_001, 2):
        peer.now_s += 0.001
        peer.server.receive(headers(stream_id), peer.now_s)
        peer.server.send_headers(stream_id, ANSWER)
        peer.server.send_data(stream_id, b"more than the window")
        if stream_id % 4 == 1:
            peer.server.receive(frames.rst_stream(stream_id, ErrorCode.CANCEL), peer.now_s)
        else:
            peer.server.receive(frames.window_update(stream_id, 100) + data(stream_id, b"", END), peer.now_s)
            peer.server.send_headers(stream_id, TRAILERS, end_stream=True)
        peer.server.data_to_send()
    assert not peer.server.is_closed
    assert peer.server.open_streams == 0
    assert peer.server._sender.queued_bytes == 0
    assert not peer.server._sender._waiting
    assert len(peer.server._receiver._decoder._cache) == 1
