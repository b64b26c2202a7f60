from urllib.parse import unquote

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.h2.events import Fields
from extproc.h2.grpc_wire import (
    RESPONSE_HEADERS,
    CallError,
    MessageReader,
    NotGrpcError,
    Status,
    prefixed,
    read_head,
    refusal,
    trailers,
)


def decoded(block: bytes) -> dict[str, str]:
    """By a decoder that has no dynamic table, as the block says nothing of one."""
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = 0
    decoder.header_table_size = 0
    fields = {str(name): str(value) for name, value in decoder.decode(block)}
    assert len(decoder.header_table.dynamic_entries) == 0
    return fields


def test_response_headers_say_grpc_and_uncompressed() -> None:
    assert decoded(RESPONSE_HEADERS) == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-accept-encoding": "identity",
    }


@pytest.mark.parametrize("status", Status)
def test_trailers_carry_the_status(status: Status) -> None:
    assert decoded(trailers(status)) == {"grpc-status": str(int(status))}


@given(st.text(max_size=600))
def test_any_text_arrives_by_its_beginning_in_printable_ascii(text: str) -> None:
    fields = decoded(trailers(Status.UNKNOWN, text))
    sent = fields.get("grpc-message", "")
    assert all(0x20 <= ord(character) < 0x7F for character in sent)
    assert unquote(sent) == text[:512]


def test_text_that_needs_no_quoting_is_sent_as_it_is() -> None:
    assert decoded(trailers(Status.UNKNOWN, "a message; of: words/")) == {
        "grpc-status": "2",
        "grpc-message": "a message; of: words/",
    }
    assert decoded(trailers(Status.UNKNOWN, "100 %\n"))["grpc-message"] == "100 %25%0A"


@pytest.mark.parametrize("status", [405, 415])
def test_a_refusal_is_a_plain_http_status(status: int) -> None:
    assert decoded(refusal(status)) == {":status": str(status), "content-length": "0"}


def fields(**changes: bytes | None) -> Fields:
    values = {":method": b"POST", ":path": b"/s/m", "content-type": b"application/grpc"}
    values |= {name.replace("_", "-"): value for name, value in changes.items()}
    return tuple((name.encode(), value) for name, value in values.items() if value is not None)


def test_a_call_has_a_path_and_no_deadline_unless_it_says_so() -> None:
    head = read_head(fields())
    assert (head.path, head.timeout_s) == ("/s/m", None)


@pytest.mark.parametrize(
    ("text", "timeout_s"),
    [
        (b"0S", 0.0),
        (b"2H", 7200.0),
        (b"3M", 180.0),
        (b"99999999S", 99999999.0),
        (b"50m", 0.05),
        (b"20u", 20e-6),
        (b"7n", 7e-9),
    ],
)
def test_a_deadline_is_read_in_every_unit(text: bytes, timeout_s: float) -> None:
    assert read_head(fields(grpc_timeout=text)).timeout_s == pytest.approx(timeout_s)


@pytest.mark.parametrize("text", [b"", b"1", b"S", b"123456789S", b"1.5S", b"-1S", b"1s", b"1S\n", b" 1S"])
def test_any_other_deadline_is_refused(text: bytes) -> None:
    with pytest.raises(CallError, match="grpc-timeout"):
        read_head(fields(grpc_timeout=text))


@pytest.mark.parametrize(
    "content_type", [None, b"", b"text/plain", b"application/grpc-web", b"application/json"]
)
def test_another_content_type_is_no_grpc(content_type: bytes | None) -> None:
    with pytest.raises(NotGrpcError) as raised:
        read_head(fields(content_type=content_type))
    assert raised.value.http_status == 415


def test_another_method_is_no_grpc() -> None:
    with pytest.raises(NotGrpcError) as raised:
        read_head(((b":method", b"GET"), (b":path", b"/")))
    assert raised.value.http_status == 405


MAX_BYTES = 1000


def reader() -> MessageReader:
    return MessageReader(MAX_BYTES)


@given(st.lists(st.binary(max_size=50), max_size=8), st.data())
def test_messages_come_out_as_they_went_in_however_their_bytes_are_cut(
    messages: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(map(prefixed, messages))
    taken, received, at = reader(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        received += taken.receive(stream[at : at + size])
        at += size
    assert received == messages
    assert not taken.is_within_message


def test_a_message_that_has_begun_is_not_complete() -> None:
    taken = reader()
    for byte in prefixed(b"ab")[:-1]:
        assert taken.receive(bytes([byte])) == []
        assert taken.is_within_message
    assert taken.receive(b"b") == [b"ab"]
    assert not taken.is_within_message


def test_the_rest_of_a_frame_begins_the_next_message() -> None:
    taken = reader()
    assert taken.receive(prefixed(b"a") + prefixed(b"bc")[:6]) == [b"a"]
    assert taken.is_within_message
    assert taken.receive(prefixed(b"bc")[6:] + prefixed(b"")) == [b"bc", b""]


@pytest.mark.parametrize("flag", [1, 2, 255])
def test_a_compressed_message_is_not_implemented(flag: int) -> None:
    with pytest.raises(CallError) as raised:
        reader().receive(bytes([flag]) + bytes(4))
    assert raised.value.status is Status.UNIMPLEMENTED


def test_the_largest_message_is_taken_and_one_byte_more_is_refused_by_its_prefix() -> None:
    largest = bytes(MAX_BYTES)
    assert reader().receive(prefixed(largest)) == [largest]
    with pytest.raises(CallError, match="1001") as raised:
        reader().receive(b"\x00" + (MAX_BYTES + 1).to_bytes(4, "big"))
    assert raised.value.status is Status.RESOURCE_EXHAUSTED


def test_a_refusal_also_comes_behind_good_messages() -> None:
    with pytest.raises(CallError):
        reader().receive(prefixed(b"good") + b"\x01" + bytes(4))
