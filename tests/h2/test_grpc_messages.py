import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.h2.grpc_messages import MessageReader, prefixed
from extproc.h2.grpc_status import CallError, Status

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
