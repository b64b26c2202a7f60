from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given
from hypothesis import strategies as st

from extproc.adapters.envoy.body_parts import response_part, unusual_response_part
from extproc.adapters.envoy.gateway_wire import CONTROL_HEADERS, DESTINATION, PREFILLER, decode, encode
from extproc.adapters.protos import ext_proc_pb2 as pb
from extproc.errors import ProtocolError
from extproc.exchange.gateway_messages import (
    AwaitBody,
    BodyMode,
    BodyModes,
    MarkResponse,
    Pick,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseTrailers,
    SendBody,
)
from extproc.exchange.messages import Continue, Phase, Reject
from extproc.h2.grpc_wire import MessageReader

SIZES = [0, 1, 120, 127, 128, 130, 16_383, 16_384, 70_000, 3_000_000]


def request(**content: Any) -> bytes:
    return ParseDict(content, pb.ProcessingRequest()).SerializeToString()


def answer(message: bytes) -> Any:
    return MessageToDict(pb.ProcessingResponse.FromString(message), preserving_proto_field_name=True)


def hint(value: Any) -> dict[str, Any]:
    return {"filter_metadata": {"envoy.lb.subset_hint": {f"{DESTINATION}-subset": value}}}


@pytest.mark.parametrize(
    ("value", "endpoints"),
    [
        (["10.0.0.1:80", " 10.0.0.2:80 "], {"10.0.0.1:80", "10.0.0.2:80"}),
        ("10.0.0.1:80,10.0.0.2", {"10.0.0.1:80", "10.0.0.2"}),
        (["10.0.0.1:80,10.0.0.2:80"], {"10.0.0.1:80", "10.0.0.2:80"}),
        (["[fd00::1]:80", "[fd00::2]"], {"[fd00::1]:80", "fd00::2"}),
        ([], frozenset()),
        ("", frozenset()),
        (7, frozenset()),
    ],
)
def test_a_hint_is_read_in_any_form(value: Any, endpoints: set[str]) -> None:
    event = decode(request(request_body={"body": "e30="}, metadata_context=hint(value)))
    assert event == RequestBody(b"{}", False, frozenset(endpoints))


def test_without_a_hint_every_endpoint_is_allowed() -> None:
    other = {"filter_metadata": {"envoy.lb.subset_hint": {"other": "x"}}}
    assert decode(request(request_trailers={}, metadata_context=other)) == RequestTrailers(None)


def test_headers_bring_the_modes() -> None:
    config = {"request_body_mode": "FULL_DUPLEX_STREAMED", "response_body_mode": "BUFFERED"}
    headers = {"headers": {"headers": [{"key": "A", "value": "b"}]}, "end_of_stream": True}
    assert decode(request(request_headers=headers, protocol_config=config)) == RequestHeaders(
        {"a": "b"}, True, BodyModes(BodyMode.FULL_DUPLEX_STREAMED, BodyMode.BUFFERED)
    )
    assert decode(request(request_headers={})) == RequestHeaders({}, False)


def test_a_mode_that_is_not_known_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="mode"):
        decode(request(request_headers={}, protocol_config={"request_body_mode": 9}))


def test_a_response_says_which_server_has_served_it() -> None:
    served = {"filter_metadata": {"envoy.lb": {f"{DESTINATION}-served": "10.0.0.1:80"}}}
    assert decode(request(response_headers={}, metadata_context=served)) == ResponseHeaders(
        {}, False, "10.0.0.1:80"
    )
    assert decode(request(response_headers={"end_of_stream": True})) == ResponseHeaders({}, True)
    assert decode(request(response_trailers={})) == ResponseTrailers()


@given(st.binary())
def test_any_bytes_are_an_event_or_a_protocol_error(message: bytes) -> None:
    for read in (decode, response_part):
        try:
            read(message)
        except ProtocolError:
            continue


@given(st.binary())
def test_any_bytes_after_the_tag_are_read_as_protobuf_reads_them(rest: bytes) -> None:
    message = b"\x2a" + rest
    try:
        part = response_part(message)
        event = decode(message)
    except ProtocolError:
        return
    if part is not None and event is None and b"\x2a" not in rest:
        assert part[:2] == unusual_response_part(message)[:2]


def test_a_part_with_fields_that_are_not_known_goes_back_with_them() -> None:
    body = pb.HttpBody(body=b"abc", end_of_stream=True).SerializeToString() + b"\x20\x01"
    message = b"\x2a" + bytes([len(body)]) + body
    assert response_part(message) is None
    assert decode(message) is None
    data, ends, answer_bytes = unusual_response_part(message)
    assert (data, ends, body in answer_bytes) == (b"abc", True, True)


def body_message(size: int, *, ends: bool, **more: Any) -> tuple[pb.HttpBody, bytes]:
    body = pb.HttpBody(body=bytes(size), end_of_stream=ends)
    return body, pb.ProcessingRequest(response_body=body, **more).SerializeToString()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ends", [False, True])
def test_a_part_of_a_response_comes_back_as_it_came(size: int, ends: bool) -> None:
    body, message = body_message(size, ends=ends)
    part = response_part(message)
    assert part is not None
    assert part[:2] == (body.body, ends)
    (answered,) = MessageReader(1 << 24).receive(part[2])
    returned = pb.ProcessingResponse.FromString(answered).response_body.response
    assert returned.body_mutation.streamed_response == pb.StreamedBodyResponse(
        body=body.body, end_of_stream=ends
    )
    assert unusual_response_part(message) == part


def test_what_follows_a_part_of_a_response_is_not_taken_for_its_end() -> None:
    context = pb.Metadata()
    context.filter_metadata["envoy.lb"].fields["a"].string_value = "b"
    _, message = body_message(3, ends=False, metadata_context=context)
    part = response_part(message + b"\x10\x01")
    assert part is not None
    assert part[:2] == (bytes(3), False)


def test_other_messages_are_no_parts_of_a_response() -> None:
    assert response_part(request(request_body={"body": "e30="})) is None
    assert response_part(b"") is None


@pytest.mark.parametrize("message", [b"\x2a", b"\x2a\x05ab", b"\x2a\x02\x0a\x09", b"\x2a" + b"\xff" * 12])
def test_a_part_that_is_cut_short_is_a_protocol_error(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        response_part(message)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ends", [False, True])
def test_a_part_of_a_request_goes_back_as_a_streamed_response(size: int, ends: bool) -> None:
    sent = pb.ProcessingResponse.FromString(encode(SendBody(bytes(size), ends)))
    assert sent.request_body.response.body_mutation.streamed_response == pb.StreamedBodyResponse(
        body=bytes(size), end_of_stream=ends
    )


@pytest.mark.parametrize("phase", [Phase.REQUEST_HEADERS, Phase.REQUEST_BODY])
def test_the_choice_is_in_a_header_and_in_metadata(phase: Phase) -> None:
    sent = pb.ProcessingResponse.FromString(encode(Pick(phase, ("10.0.0.1:80", "10.0.0.2:80"), 12)))
    common = getattr(sent, phase.value).response
    assert common.clear_route_cache
    headers = {
        option.header.key: (option.header.raw_value, option.header.value, option.append_action)
        for option in common.header_mutation.set_headers
    }
    overwrite = pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    assert headers == {
        DESTINATION: (b"10.0.0.1:80,10.0.0.2:80", "", overwrite),
        "content-length": (b"12", "", overwrite),
    }
    metadata = MessageToDict(sent.dynamic_metadata)
    assert metadata == {"envoy.lb": {DESTINATION: "10.0.0.1:80,10.0.0.2:80"}}


def test_a_trace_goes_on_with_our_span() -> None:
    sent = pb.ProcessingResponse.FromString(
        encode(Pick(Phase.REQUEST_HEADERS, ("10.0.0.1:80",), traceparent="00-1-2-01"))
    )
    options = sent.request_headers.response.header_mutation.set_headers
    assert ("traceparent", b"00-1-2-01") in [(each.header.key, each.header.raw_value) for each in options]


def test_headers_by_which_a_client_could_choose_are_removed() -> None:
    sent = pb.ProcessingResponse.FromString(encode(Pick(Phase.REQUEST_HEADERS, ("10.0.0.1:80",))))
    mutation = sent.request_headers.response.header_mutation
    assert tuple(mutation.remove_headers) == CONTROL_HEADERS
    assert {"x-prefiller-host-port", f"{DESTINATION}-subset", f"{DESTINATION}-served"} <= set(CONTROL_HEADERS)
    assert [option.header.key for option in mutation.set_headers] == [DESTINATION]


def test_the_server_that_prefills_is_in_a_header_that_is_not_removed_as_well() -> None:
    pick = Pick(Phase.REQUEST_HEADERS, ("10.0.0.1:80",), prefiller="10.0.0.2:80")
    mutation = pb.ProcessingResponse.FromString(encode(pick)).request_headers.response.header_mutation
    assert set(mutation.remove_headers) == set(CONTROL_HEADERS) - {PREFILLER}
    (option,) = [each for each in mutation.set_headers if each.header.key == "x-prefiller-host-port"]
    assert option.header.raw_value == b"10.0.0.2:80"
    assert option.append_action == pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def test_a_gateway_that_buffers_is_asked_for_the_end_of_the_response_and_not_for_its_body() -> None:
    assert answer(encode(AwaitBody())) == {
        "request_headers": {},
        "mode_override": {
            "response_header_mode": "SEND",
            "request_body_mode": "BUFFERED",
            "response_trailer_mode": "SEND",
        },
    }


def test_headers_of_a_response_are_set() -> None:
    sent = answer(encode(MarkResponse({"x-extproc-backend": "vllm-1"})))
    mutation = sent["response_headers"]["response"]["header_mutation"]
    assert mutation["set_headers"][0]["header"]["key"] == "x-extproc-backend"
    assert answer(encode(MarkResponse({}))) == {"response_headers": {}}


def test_refusals_and_answers_to_trailers_are_those_of_ext_proc() -> None:
    assert answer(encode(Continue(Phase.RESPONSE_TRAILERS))) == {"response_trailers": {}}
    assert answer(encode(Reject(429, b"x", {})))["immediate_response"]["status"] == {"code": 429}
