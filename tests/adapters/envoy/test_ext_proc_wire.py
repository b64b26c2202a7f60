from contextlib import suppress

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from extproc.adapters.envoy.ext_proc_wire import decode, encode
from extproc.adapters.envoy.protobuf_bytes import length_delimited, read_varint, varint
from extproc.adapters.protos import ext_proc_pb2 as pb
from extproc.errors import ProtocolError
from extproc.exchange.messages import (
    BodyReceived,
    Continue,
    HeadersReceived,
    Hold,
    OtherReceived,
    Phase,
    Reject,
    RouteTo,
)

OTHER_PHASES = [phase for phase in Phase if phase not in {Phase.REQUEST_HEADERS, Phase.REQUEST_BODY}]


def headers_message(*headers: pb.HeaderValue, end_of_stream: bool = False) -> bytes:
    headers_map = pb.HeaderMap(headers=headers)
    request = pb.ProcessingRequest(
        request_headers=pb.HttpHeaders(headers=headers_map, end_of_stream=end_of_stream)
    )
    return request.SerializeToString()


def answer(message: bytes) -> pb.ProcessingResponse:
    return pb.ProcessingResponse.FromString(message)


@given(st.integers(0, 1 << 40), st.binary(max_size=3), st.binary(max_size=3))
def test_a_varint_is_read_as_it_was_written(number: int, before: bytes, after: bytes) -> None:
    data = before + varint(number)
    assert read_varint(data + after, len(before)) == (number, len(data))


def test_header_names_are_lower_case_and_values_come_from_raw_value() -> None:
    message = headers_message(
        pb.HeaderValue(key=":path", raw_value=b"/v1"), pb.HeaderValue(key="X-A", raw_value=b"B")
    )
    assert decode(message) == HeadersReceived({":path": "/v1", "x-a": "B"}, end_of_stream=False)


def test_a_repeated_name_has_its_last_value_but_a_repeated_limit_is_no_number() -> None:
    message = headers_message(
        *(pb.HeaderValue(key="x-tenant", raw_value=value) for value in (b"a client's", b"the gateway's")),
        *(pb.HeaderValue(key="x-slo-ttft-ms", raw_value=value) for value in (b"100", b"200")),
    )
    headers = {"x-tenant": "the gateway's", "x-slo-ttft-ms": "100, 200"}
    assert decode(message) == HeadersReceived(headers, end_of_stream=False)


@given(
    length=st.integers(0, 10**15).map(str) | st.text(max_size=8),
    path=st.text(max_size=8),
    is_last=st.booleans(),
)
def test_the_length_of_a_body_is_that_of_its_own_message(length: str, path: str, is_last: bool) -> None:
    told = {":path": path, "content-length": length}
    message = headers_message(
        *(pb.HeaderValue(key=name, raw_value=value.encode()) for name, value in told.items()),
        end_of_stream=is_last,
    )
    for _ in range(2):
        assert decode(message) == HeadersReceived(told, is_last)


@pytest.mark.parametrize("rest", [b"", b"\x05", b"\x05123", b"\x00", b"\xff" * 9])
def test_a_message_that_ends_within_a_length_is_no_fault_of_ours(rest: bytes) -> None:
    with suppress(ProtocolError):
        decode(b"\x12\x80\x0a\x0econtent-length\x1a" + rest)


def test_value_is_read_where_raw_value_is_empty() -> None:
    assert decode(headers_message(pb.HeaderValue(key="a", value="b"))) == HeadersReceived({"a": "b"}, False)


def test_header_bytes_that_are_no_text_are_replaced_not_refused() -> None:
    event = decode(headers_message(pb.HeaderValue(key="a", raw_value=b"b\xff")))
    assert event == HeadersReceived({"a": "b\N{REPLACEMENT CHARACTER}"}, False)


def test_headers_without_a_body_end_the_stream() -> None:
    assert decode(headers_message(end_of_stream=True)) == HeadersReceived({}, end_of_stream=True)


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff\x00"])
def test_body_is_handed_on_as_it_came(body: bytes) -> None:
    message = pb.ProcessingRequest(
        request_body=pb.HttpBody(body=body, end_of_stream=True)
    ).SerializeToString()
    assert decode(message) == BodyReceived(body)


@given(
    body=st.binary(max_size=300) | st.integers(16_370, 16_390).map(bytes),
    ends=st.sampled_from([b"", b"\x10\x01", b"\x10\x00", b"\x0a\x01x", b"\x18\x01"]),
    after=st.sampled_from([b"", b"\x22\x03\x0a\x01y", b"\x40\x01"]),
    cut=st.integers(0, 8),
)
def test_a_body_is_read_as_protobuf_reads_it(body: bytes, ends: bytes, after: bytes, cut: int) -> None:
    content = length_delimited(b"\x0a", body) + ends
    message = length_delimited(b"\x22", content) + after
    message = message[: len(message) - cut]
    try:
        expected = pb.ProcessingRequest.FromString(message)
    except DecodeError:
        with pytest.raises(ProtocolError):
            decode(message)
        return
    if expected.HasField("request_body"):
        assert decode(message) == BodyReceived(expected.request_body.body)


@pytest.mark.parametrize("phase", OTHER_PHASES)
def test_unwanted_phases_are_named(phase: Phase) -> None:
    request = pb.ProcessingRequest()
    getattr(request, phase.value).SetInParent()
    assert decode(request.SerializeToString()) == OtherReceived(phase)


@pytest.mark.parametrize(
    "message", [b"", b"\x50\x01", b"\xfa\x01\x00"], ids=["empty", "another field", "a new phase"]
)
def test_message_without_a_known_phase_is_refused(message: bytes) -> None:
    with pytest.raises(ProtocolError, match="phase"):
        decode(message)


def test_truncated_message_is_refused() -> None:
    with pytest.raises(ProtocolError, match="not a ProcessingRequest"):
        decode(headers_message(pb.HeaderValue(key="a", raw_value=b"b"))[:-1])


@given(st.binary())
def test_any_bytes_are_an_event_or_a_protocol_error(message: bytes) -> None:
    try:
        event = decode(message)
    except ProtocolError:
        return
    assert isinstance(event, HeadersReceived | BodyReceived | OtherReceived)


@pytest.mark.parametrize("phase", Phase)
def test_continue_names_its_phase_and_changes_nothing(phase: Phase) -> None:
    response = answer(encode(Continue(phase)))
    assert response.WhichOneof("response") == phase.value
    assert response.ByteSize() == len(encode(Continue(phase))) == 2


@pytest.mark.parametrize("phase", [Phase.REQUEST_HEADERS, Phase.REQUEST_BODY])
def test_route_overwrites_the_cluster_header_and_asks_for_another_route(phase: Phase) -> None:
    response = answer(encode(RouteTo(phase, "vllm-2")))
    assert MessageToDict(response, preserving_proto_field_name=True) == {
        phase.value: {
            "response": {
                "clear_route_cache": True,
                "header_mutation": {
                    "set_headers": [
                        {
                            "header": {"key": "x-extproc-cluster", "raw_value": "dmxsbS0y"},
                            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                        }
                    ]
                },
            }
        }
    }


def test_route_tells_the_address_to_an_envoy_that_goes_by_it() -> None:
    response = answer(encode(RouteTo(Phase.REQUEST_BODY, "vllm-2", address="[fd00::1]:8000")))
    headers = response.request_body.response.header_mutation.set_headers
    assert [(option.header.key, option.header.raw_value) for option in headers] == [
        ("x-extproc-cluster", b"vllm-2"),
        ("x-extproc-address", b"[fd00::1]:8000"),
    ]
    assert all(option.append_action == option.OVERWRITE_IF_EXISTS_OR_ADD for option in headers)


@given(st.dictionaries(st.text(), st.text()))
@example({"backend": "b" * 200, "facts": "f" * 120})
@example({"backend": "b", "facts": "f" * 20_000})
def test_metadata_stands_under_the_namespace(metadata: dict[str, str]) -> None:
    response = answer(encode(RouteTo(Phase.REQUEST_BODY, "a", metadata)))
    received = response.dynamic_metadata.fields["extproc"].struct_value.fields
    assert {name: value.string_value for name, value in received.items()} == metadata
    assert response.request_body.response.clear_route_cache


def test_a_hold_asks_for_patience_and_answers_nothing_yet() -> None:
    response = pb.ProcessingResponse.FromString(encode(Hold(12.5)))
    assert response.WhichOneof("response") is None
    assert response.override_message_timeout.ToMilliseconds() == 12_500


def test_reject_answers_at_once_with_status_body_and_headers() -> None:
    response = answer(
        encode(Reject(503, b'{"error": {}}', {"content-type": "application/json", "retry-after": "3"}))
    )
    immediate = response.immediate_response
    assert (immediate.status.code, immediate.body, immediate.details) == (
        503,
        b'{"error": {}}',
        "extproc_reject",
    )
    assert [
        (option.header.key, option.header.raw_value, option.header.value, option.append_action)
        for option in immediate.headers.set_headers
    ] == [
        ("content-type", b"application/json", "", pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD),
        ("retry-after", b"3", "", pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD),
    ]
