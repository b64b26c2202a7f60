"""RFC 7541 as far as a table of size 0 needs it, and RFC 9113 §8.2, §8.3."""

import hpack
import pytest
from support.h2_frame_client import (
    FIELDS,
    REQUEST,
    SETTINGS_ACK,
    H2Client,
    Peer,
    block,
    data,
    headers,
    settings,
)

from extproc.h2 import frames
from extproc.h2.connection import ServerConnection
from extproc.h2.events import ConnectionEnded, ErrorCode, StreamClosed, StreamOpened
from extproc.h2.frames import PREFACE
from extproc.h2.headers import BlockDecoder

METHOD, SCHEME, PATH = FIELDS[:3]
END = frames.END_STREAM
MALFORMED = {
    "no :method": FIELDS[1:],
    "no :scheme": (METHOD, *FIELDS[2:]),
    "no :path": (METHOD, SCHEME),
    "empty :path": (METHOD, SCHEME, (b":path", b"")),
    ":method twice": (METHOD, *FIELDS),
    "unknown pseudo-header": (METHOD, SCHEME, PATH, (b":protocol", b"websocket")),
    "pseudo-header of a response": (METHOD, SCHEME, PATH, (b":status", b"200")),
    "pseudo-header after others": ((b"te", b"trailers"), METHOD, SCHEME, PATH),
    "upper case": (*FIELDS, (b"Accept", b"x")),
    "empty name": (*FIELDS, (b"", b"x")),
    "space in a name": (*FIELDS, (b"a b", b"x")),
    "colon in a name": (*FIELDS, (b"a:b", b"x")),
    "8-bit name": (*FIELDS, (b"a\xff", b"x")),
    "NUL in a value": (*FIELDS, (b"x", b"a\0b")),
    "CR in a value": (*FIELDS, (b"x", b"a\rb")),
    "LF in a value": (*FIELDS, (b"x", b"a\nb")),
    "LF in :path": (METHOD, SCHEME, (b":path", b"/\n")),
    "space before a value": (*FIELDS, (b"x", b" a")),
    "tab after a value": (*FIELDS, (b"x", b"a\t")),
    "connection": (*FIELDS, (b"connection", b"close")),
    "keep-alive": (*FIELDS, (b"keep-alive", b"1")),
    "proxy-connection": (*FIELDS, (b"proxy-connection", b"1")),
    "transfer-encoding": (*FIELDS, (b"transfer-encoding", b"chunked")),
    "upgrade": (*FIELDS, (b"upgrade", b"h2c")),
    "te other than trailers": (*FIELDS, (b"te", b"gzip")),
    "content-length no number": (*FIELDS, (b"content-length", b"+1")),
    "content-length twice, not the same": (*FIELDS, (b"content-length", b"1"), (b"content-length", b"2")),
    "content-length of thousands of digits": (*FIELDS, (b"content-length", b"9" * 5000)),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_request_is_reset_and_not_announced(what: str) -> None:
    """§8.1.1."""
    peer = Peer()
    assert peer.verdict(headers(1, block(MALFORMED[what]))) == ("stream", ErrorCode.PROTOCOL_ERROR)
    assert peer.events == []
    assert peer.server.open_streams == 0


@pytest.mark.parametrize(
    "field",
    [
        (b"x-text", b"a b\tc \xc3\xa4"),
        (b"x-empty", b""),
        (b"grpc-timeout", b"100m"),
        (b"content-length", b"0"),
        (b"x!#$%&'*+-.^_`|~9", b"x"),
    ],
)
def test_sound_field_is_handed_on_as_it_is(field: tuple[bytes, bytes]) -> None:
    peer = Peer()
    peer.send(headers(1, block((*FIELDS, field))))
    assert peer.events == [StreamOpened(1, (*FIELDS, field), False)]


@pytest.mark.parametrize(
    ("bodies", "is_sound"),
    [((b"12345",), True), ((b"123", b"45"), True), ((b"1234",), False), ((b"123456",), False), ((), False)],
)
def test_content_length_must_be_that_of_the_data(bodies: tuple[bytes, ...], is_sound: bool) -> None:
    """§8.1.1; padding is not content."""
    peer = Peer()
    begin = headers(1, block((*FIELDS, (b"content-length", b"5"))))
    raw = begin + b"".join(data(1, b"\x01" + body + b"\0", frames.PADDED) for body in bodies)
    expected = None if is_sound else ("stream", ErrorCode.PROTOCOL_ERROR)
    assert peer.verdict(raw + data(1, b"", END)) == expected


def test_content_length_counts_up_to_trailers_too() -> None:
    peer = Peer()
    peer.send(headers(1, block((*FIELDS, (b"content-length", b"5")))))
    trailers = headers(1, block(((b"x", b"1"),)), END | frames.END_HEADERS)
    assert peer.verdict(trailers) == ("stream", ErrorCode.PROTOCOL_ERROR)
    assert peer.events == [StreamClosed(1, ErrorCode.PROTOCOL_ERROR)]


def test_request_without_body_has_no_content_length() -> None:
    peer = Peer()
    begin = headers(1, block((*FIELDS, (b"content-length", b"5"))), END | frames.END_HEADERS)
    assert peer.verdict(begin) == ("stream", ErrorCode.PROTOCOL_ERROR)


def test_client_may_use_a_table_until_it_knows_better() -> None:
    """§6.5.3: clients send requests before our SETTINGS can have reached them."""
    encoder, server = hpack.Encoder(), ServerConnection()
    first, second = encoder.encode(FIELDS), encoder.encode(FIELDS)
    assert len(second) < len(first)
    events = server.receive(PREFACE + settings() + headers(1, first) + headers(3, second), 0.0)
    assert events == [StreamOpened(1, FIELDS, False), StreamOpened(3, FIELDS, False)]
    encoder.header_table_size = 0
    assert server.receive(SETTINGS_ACK + headers(5, encoder.encode(FIELDS)), 0.0) == [
        StreamOpened(5, FIELDS, False)
    ]


def test_client_must_give_up_its_table_once_it_has_acknowledged() -> None:
    """§4.3.1."""
    encoder, server = hpack.Encoder(), ServerConnection()
    server.receive(PREFACE + settings() + headers(1, encoder.encode(FIELDS)) + SETTINGS_ACK, 0.0)
    events = server.receive(headers(3, encoder.encode(FIELDS)), 0.0)
    assert events == [
        StreamClosed(1, None),
        ConnectionEnded(ErrorCode.COMPRESSION_ERROR, "broken header block"),
    ]


def test_clients_of_the_library_are_understood_before_and_after_their_acknowledgement() -> None:
    peer = H2Client()
    for stream_id in (1, 3, 5):
        peer.client.send_headers(stream_id, FIELDS)
        peer.exchange()
    assert peer.events == [StreamOpened(stream_id, FIELDS, False) for stream_id in (1, 3, 5)]


def test_no_block_is_cached_while_there_is_a_table() -> None:
    decoder, encoder = BlockDecoder(16_384), hpack.Encoder()
    first = decoder.decode(encoder.encode([(b"x-a", b"1")]))
    again = encoder.encode([(b"x-a", b"1")])
    assert decoder.decode(again).fields == first.fields
    other = encoder.encode([(b"x-b", b"2")])
    assert decoder.decode(other).fields == ((b"x-b", b"2"),)
    assert decoder.decode(again).fields == ((b"x-b", b"2"),)  # the same bytes now mean another field


def test_repeated_block_is_decoded_once_and_the_cache_is_bounded() -> None:
    decoder = BlockDecoder(16_384)
    decoder.forbid_table()
    assert decoder.decode(b"\x20" + REQUEST) is decoder.decode(b"\x20" + REQUEST)
    for number in range(1000):
        decoder.decode(b"\x20" + block(((b"x", b"%d" % number),)))
    decoder.decode(b"\x20" + block(((b"x", bytes(5000)),)))
    assert len(decoder._cache) == 64
