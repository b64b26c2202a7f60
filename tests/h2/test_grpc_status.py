from urllib.parse import unquote

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.h2.grpc_status import RESPONSE_HEADERS, Status, refusal, trailers


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
