"""RFC 9113 §5.2 and §6.9, both directions."""

import h2.events
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.h2_frame_client import ANSWER, DEFAULT, FIELDS, TRAILERS, H2Client, Peer, data, headers, settings

from extproc.h2 import frames
from extproc.h2.events import DataReceived, ErrorCode, StreamClosed
from extproc.h2.h2_limits import Limits
from extproc.h2.stream import ReceiveWindow


def sent_bytes(found: list[tuple[int, int, int, bytes]], stream_id: int) -> int:
    return sum(
        len(payload) for kind, _, of_id, payload in found if kind == frames.DATA and of_id == stream_id
    )


def test_a_body_of_32_mib_needs_no_window_update_of_its_stream() -> None:
    peer = Peer()
    peer.send(headers(1))
    answers = [answer for _ in range(2048) for answer in peer.send(data(1, bytes(16_384)))]
    assert len(answers) <= 2
    assert peer.server.open_streams == 1


@given(st.integers(1, 5000), st.lists(st.integers(0, 3000)))
def test_refilled_window_is_never_over_its_size_nor_under_half(size: int, takes: list[int]) -> None:
    window = ReceiveWindow(size)
    for take in (take for take in takes if take <= size):
        if take <= window.left:
            before = window.left
            window.left -= take
            increment = window.refill() if window.left <= window.half else 0
            assert window.left == before - take + increment
            assert size / 2 - 1 < window.left <= size


def test_windows_are_refilled_while_a_client_uploads() -> None:
    peer = H2Client(Limits(stream_window_bytes=70_000, connection_window_bytes=70_001))
    peer.client.send_headers(1, FIELDS)
    for _ in range(100):
        peer.client.send_data(1, bytes(16_000))  # raises if its window is too small
        peer.exchange()
    got = sum(len(event.data) for event in peer.events if isinstance(event, DataReceived))
    assert got == 1_600_000


def test_more_data_than_a_streams_window_resets_the_stream() -> None:
    peer = Peer(Limits(stream_window_bytes=100))
    peer.send(headers(1))
    assert peer.verdict(data(1, bytes(101))) == ("stream", ErrorCode.FLOW_CONTROL_ERROR)
    assert peer.events == [StreamClosed(1, ErrorCode.FLOW_CONTROL_ERROR)]


def test_more_data_than_the_connections_window_ends_it() -> None:
    peer = Peer(Limits(max_frame_bytes=90_000, connection_window_bytes=80_000))
    peer.send(headers(1))
    assert peer.verdict(data(1, bytes(80_001))) == ("connection", ErrorCode.FLOW_CONTROL_ERROR)


def test_padding_and_data_for_gone_streams_count_against_the_connection() -> None:
    """§6.9.1: else the two sides would not agree about the window for ever after."""
    peer = Peer(Limits(connection_window_bytes=70_000))
    peer.send(headers(1) + headers(3))
    peer.server.reset(1, ErrorCode.CANCEL)
    peer.read()
    assert peer.send(data(1, bytes(16_000))) == []
    assert peer.send(data(3, b"\xff" + bytes(16_000), frames.PADDED)) == []
    (update,) = peer.send(data(3, bytes(3_000)))
    assert update == (frames.WINDOW_UPDATE, 0, 0, (16_000 + 16_001 + 3_000).to_bytes(4))


def test_data_waits_for_the_streams_window_and_trailers_behind_it() -> None:
    peer = Peer(DEFAULT, (4, 5))
    peer.send(headers(1))
    peer.server.send_headers(1, ANSWER)
    peer.server.send_data(1, b"0123456789")
    peer.server.send_headers(1, TRAILERS, end_stream=True)
    assert peer.read()[1:] == [(frames.DATA, 0, 1, b"01234")]
    assert peer.send(frames.window_update(1, 2)) == [(frames.DATA, 0, 1, b"56")]
    assert [frame[3] for frame in peer.send(frames.window_update(1, 9))] == [b"789", TRAILERS]


def test_end_of_stream_waits_behind_data_and_needs_no_window() -> None:
    peer = Peer(DEFAULT, (4, 3))
    peer.send(headers(1))
    peer.server.send_data(1, b"abc")
    peer.server.send_data(1, b"", end_stream=True)
    assert peer.read() == [(frames.DATA, 0, 1, b"abc"), (frames.DATA, frames.END_STREAM, 1, b"")]


def test_data_is_cut_to_the_frames_that_the_peer_takes() -> None:
    """§4.2."""
    peer = Peer(DEFAULT, (4, 100_000))
    peer.send(headers(1))
    peer.server.send_data(1, bytes(40_000))
    assert [len(frame[3]) for frame in peer.read()] == [16_384, 16_384, 7_232]


def test_header_block_is_cut_to_the_frames_that_the_peer_takes() -> None:
    """§6.10."""
    peer = Peer()
    peer.send(headers(1))
    peer.server.send_headers(1, bytes(40_000), end_stream=True)
    found = peer.read()
    assert [(kind, flags) for kind, flags, _, _ in found] == [
        (frames.HEADERS, frames.END_STREAM),
        (frames.CONTINUATION, 0),
        (frames.CONTINUATION, frames.END_HEADERS),
    ]
    assert sum(len(frame[3]) for frame in found) == 40_000


def test_connection_window_is_shared_in_turns() -> None:
    peer = Peer()
    peer.send(headers(1) + headers(3) + headers(5))
    peer.server.send_data(1, bytes(65_535))
    for stream_id in (3, 5):
        peer.server.send_data(stream_id, bytes(10))
    assert sent_bytes(peer.read(), 1) == 65_535
    assert peer.send(frames.window_update(0, 4)) == [(frames.DATA, 0, 3, bytes(4))]
    assert peer.send(frames.window_update(0, 4)) == [(frames.DATA, 0, 5, bytes(4))]
    assert peer.send(frames.window_update(0, 7)) == [
        (frames.DATA, 0, 3, bytes(6)),
        (frames.DATA, 0, 5, bytes(1)),
    ]


def test_smaller_initial_window_makes_windows_negative() -> None:
    """§6.9.2, with its own numbers."""
    peer = Peer(DEFAULT, (4, 60))
    peer.send(headers(1))
    peer.server.send_data(1, bytes(60))
    peer.read()
    peer.send(settings((4, 16)))
    peer.server.send_data(1, b"x")
    assert peer.read() == []
    assert peer.send(frames.window_update(1, 44)) == []
    assert peer.send(frames.window_update(1, 1)) == [(frames.DATA, 0, 1, b"x")]


def test_larger_initial_window_lets_go_what_waits_after_the_acknowledgement() -> None:
    """§6.5.3: a client may hold us to the old window until then."""
    peer = Peer(DEFAULT, (4, 0))
    peer.send(headers(1))
    peer.server.send_data(1, b"abc")
    assert peer.read() == []
    assert peer.send(settings((4, 10), (4, 2))) == [
        (frames.SETTINGS, frames.ACK, 0, b""),
        (frames.DATA, 0, 1, b"ab"),
    ]


@pytest.mark.parametrize("table_bytes", [0, 100, 4095])
def test_smaller_header_table_is_confirmed_in_the_next_block(table_bytes: int) -> None:
    """§4.3.1; the library refuses a block that does not."""
    peer = H2Client(HEADER_TABLE_SIZE=table_bytes)
    for stream_id in (1, 3):
        peer.client.send_headers(stream_id, FIELDS, end_stream=True)
        peer.exchange()
        peer.server.send_headers(stream_id, ANSWER, end_stream=True)
        peer.to_client()
    answers = [event for event in peer.received if isinstance(event, h2.events.ResponseReceived)]
    assert [event.stream_id for event in answers] == [1, 3]
