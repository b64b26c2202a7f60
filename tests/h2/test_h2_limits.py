"""RFC 9113 §10.5: a peer that costs too much is told ENHANCE_YOUR_CALM; one that does much of use is not."""

from collections.abc import Callable

import pytest
from support.h2_frame_client import (
    ANSWER,
    DEFAULT,
    FIELDS,
    REQUEST,
    TRAILERS,
    Peer,
    block,
    data,
    headers,
    settings,
)

from extproc.h2 import frames
from extproc.h2.events import ErrorCode, StreamClosed
from extproc.h2.h2_limits import Limits

CALM = ("connection", ErrorCode.ENHANCE_YOUR_CALM)
TIGHT = Limits(control_frames_burst=50, control_frames_per_s=10, resets_burst=50, resets_per_s=10)
END = frames.END_STREAM | frames.END_HEADERS

CONTROL_FLOODS = {
    "PING": frames.frame(frames.PING, 0, 0, bytes(8)),
    "PING acknowledgements": frames.frame(frames.PING, frames.ACK, 0, bytes(8)),
    "SETTINGS": settings(),
    "SETTINGS acknowledgements": frames.frame(frames.SETTINGS, frames.ACK, 0),
    "PRIORITY": frames.frame(frames.PRIORITY, 0, 1, bytes(5)),
    "GOAWAY": frames.goaway(0, ErrorCode.NO_ERROR),
    "unknown frames": frames.frame(200, 0, 1),
    "empty DATA": data(1, b""),
    "padding alone": data(1, b"\x02\0\0", frames.PADDED),
}


@pytest.mark.parametrize("what", CONTROL_FLOODS)
def test_flood_is_ended(what: str) -> None:
    peer = Peer(TIGHT)
    peer.send(headers(1))
    assert peer.verdict(CONTROL_FLOODS[what] * 40) is None
    assert peer.verdict(CONTROL_FLOODS[what] * 20) == CALM


@pytest.mark.parametrize("what", CONTROL_FLOODS)
def test_same_frames_over_a_longer_time_are_none(what: str) -> None:
    peer = Peer(TIGHT)
    peer.send(headers(1))
    for second in range(100):
        peer.now_s = float(second)
        assert peer.verdict(CONTROL_FLOODS[what] * 9) is None


def test_settings_cost_more_where_many_streams_are_open() -> None:
    """§6.9.2 makes every stream be visited."""
    peer = Peer(TIGHT)
    peer.send(b"".join(headers(stream_id) for stream_id in range(1, 2001, 2)))
    assert peer.verdict(settings((4, 1), (4, 2)) * 3) == CALM


def test_rapid_reset_is_ended() -> None:
    """CVE-2023-44487."""
    peer = Peer(TIGHT)
    for number in range(200):
        stream_id = 2 * number + 1
        if peer.verdict(headers(stream_id) + frames.rst_stream(stream_id, ErrorCode.CANCEL)) == CALM:
            break
    assert 50 <= number <= 60


def test_rapid_reset_of_answered_streams_is_how_envoy_ends_them() -> None:
    peer = Peer(TIGHT)
    for number in range(200):
        stream_id = 2 * number + 1
        peer.send(headers(stream_id))
        peer.server.send_headers(stream_id, ANSWER)
        assert peer.verdict(frames.rst_stream(stream_id, ErrorCode.CANCEL)) is None


def test_what_one_client_of_a_proxy_resets_does_not_end_the_streams_of_the_others() -> None:
    """Envoy sends the first message of a call along with its headers, before it knows of a reset."""
    peer = Peer(TIGHT)
    peer.send(headers(1))
    for number in range(1, 200):
        stream_id = 2 * number + 1
        call = headers(stream_id) + data(stream_id) + frames.rst_stream(stream_id, ErrorCode.CANCEL)
        assert peer.verdict(call) is None
    assert peer.server.open_streams == 1


@pytest.mark.parametrize(
    "provoking",
    [
        lambda stream_id: headers(stream_id, TRAILERS),
        lambda stream_id: headers(stream_id) + frames.window_update(stream_id, 0),
        lambda stream_id: headers(stream_id, REQUEST, END) + data(stream_id),
    ],
)
def test_making_us_reset_is_the_same_as_resetting(provoking: Callable[[int], bytes]) -> None:
    """CVE-2025-8671."""
    peer = Peer(TIGHT)
    verdicts = [peer.verdict(provoking(2 * number + 1)) for number in range(52)]
    assert {verdict and verdict[0] for verdict in verdicts[:50]} == {"stream"}
    assert verdicts[50] == CALM


def test_all_that_wait_may_be_reset_at_once() -> None:
    """A client that gives up, with as many requests as it may have."""
    peer = Peer()
    count = 2 * DEFAULT.max_concurrent_streams
    peer.send(b"".join(headers(stream_id) for stream_id in range(1, count, 2)))
    resets = b"".join(frames.rst_stream(stream_id, ErrorCode.CANCEL) for stream_id in range(1, count, 2))
    assert peer.verdict(resets) is None
    assert peer.server.open_streams == 0


def test_streams_over_the_limit_are_refused_and_those_after_the_end_of_one_are_not() -> None:
    """§5.1.2."""
    peer = Peer(Limits(max_concurrent_streams=2))
    peer.send(headers(1) + headers(3))
    assert peer.verdict(headers(5)) == ("stream", ErrorCode.REFUSED_STREAM)
    assert peer.events == []
    assert peer.send(data(5)) == []
    peer.send(frames.rst_stream(1, ErrorCode.CANCEL))
    assert peer.verdict(headers(7)) is None


def test_header_block_in_many_frames_is_ended() -> None:
    """CVE-2024-27316."""
    peer = Peer()
    peer.send(headers(1, b"", 0))
    assert peer.verdict(frames.frame(frames.CONTINUATION, 0, 1, b"") * 16) is None
    assert peer.verdict(frames.frame(frames.CONTINUATION, 0, 1, b"")) == CALM


def test_large_header_block_is_ended_before_it_is_whole() -> None:
    peer = Peer()
    peer.send(headers(1, bytes(16_000), 0))
    assert peer.verdict(frames.frame(frames.CONTINUATION, 0, 1, bytes(1_000))) == CALM


def test_large_header_list_of_a_small_block_is_ended() -> None:
    """The "HPACK bomb", without a table."""
    assert Peer().verdict(headers(1, b"\x87" * 1000)) == CALM
    assert Peer().verdict(headers(1, block((*FIELDS, (b"x", b"0" * 17_000))))) == CALM


def test_stream_that_is_not_read_is_reset() -> None:
    peer = Peer(Limits(max_stream_queue_bytes=1000), (4, 10))
    peer.send(headers(1) + headers(3))
    peer.server.send_data(1, bytes(1010))
    assert [frame[0] for frame in peer.read()] == [frames.DATA]
    peer.server.send_data(1, b"x")
    assert peer.send(b"") == [(frames.RST_STREAM, 0, 1, ErrorCode.ENHANCE_YOUR_CALM.to_bytes(4))]
    assert peer.events == [StreamClosed(1, ErrorCode.ENHANCE_YOUR_CALM)]
    assert peer.server.open_streams == 1


def test_connection_of_which_many_streams_are_not_read_is_ended() -> None:
    peer = Peer(Limits(max_stream_queue_bytes=1000, max_unsent_bytes=5000), (4, 0))
    for stream_id in range(1, 13, 2):
        peer.send(headers(stream_id))
        peer.server.send_data(stream_id, bytes(900))
    assert peer.server.is_closed
    assert peer.verdict(b"") == CALM
    assert peer.server._sender.queued_bytes == 0


def test_answers_that_are_not_fetched_are_bounded() -> None:
    """A transport that is paused, and a peer that goes on asking."""
    peer = Peer(Limits(max_unsent_bytes=5000))
    ping = frames.frame(frames.PING, 0, 0, bytes(8))
    while not peer.server.is_closed:
        peer.server.receive(ping * 10, 0.0)
        assert len(peer.server.data_to_send() if peer.server.is_closed else b"") < 100
        assert len(peer.server._sender.out) < 5200


def test_partial_frames_hold_no_more_than_a_frame() -> None:
    peer = Peer()
    raw = headers(1) + data(1, bytes(16_384))
    for at in range(0, len(raw), 7):
        peer.server.receive(raw[at : at + 7], 0.0)
        assert len(peer.server._receiver._reader._partial) <= 16_384 + 9 + 7
    assert not peer.server._receiver._reader._partial
