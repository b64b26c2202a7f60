"""protos/ against Envoy's whole API as envoy-data-plane has it: other stubs, by another implementation."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from extproc.adapters.protos import access_log_pb2, ext_proc_pb2, health_pb2

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its generated code uses a form of validator that pydantic deprecates
    from envoy_data_plane.envoy.config.core import v3 as core
    from envoy_data_plane.envoy.service.accesslog import v3 as log_service
    from envoy_data_plane.envoy.service.ext_proc import v3 as ext_proc
    from envoy_data_plane.envoy.type import v3 as types

ROOTS: list[tuple[type[Message], Any]] = [
    (ext_proc_pb2.ProcessingRequest, ext_proc.ProcessingRequest),
    (ext_proc_pb2.ProcessingResponse, ext_proc.ProcessingResponse),
    (access_log_pb2.StreamAccessLogsMessage, log_service.StreamAccessLogsMessage),
    (access_log_pb2.StreamAccessLogsResponse, log_service.StreamAccessLogsResponse),
]
TYPE_NAMES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


def fields_of(ours: Any, theirs: Any) -> Iterator[tuple[FieldDescriptor, Any, Any]]:
    """Every field of ours under a root, with their metadata and their class for it; google's own excepted."""
    for field in ours.fields:
        meta = theirs._betterproto.meta_by_field_name.get(field.name)
        yield field, meta, theirs
        nested = field.message_type
        if meta is not None and nested is not None and not nested.full_name.startswith("google."):
            key = f"{field.name}.value" if is_map(field) else field.name
            target = nested.fields_by_name["value"].message_type if is_map(field) else nested
            if target is not None and not target.full_name.startswith("google."):
                yield from fields_of(target, theirs._betterproto.cls_by_field[key])


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def their_type(field: FieldDescriptor, meta: Any, owner: Any) -> str:
    if owner is types.HttpStatus:
        return "int32"  # an enum there; the wire format is that of an int32
    if meta.proto_type != "message":
        return str(meta.proto_type)
    return str(
        (meta.unwrap() if meta.unwrap else owner._betterproto.cls_by_field[field.name]).__name__
    ).lower()


def our_type(field: FieldDescriptor) -> str:
    if is_map(field):
        return "map"
    return field.message_type.name.lower() if field.message_type else TYPE_NAMES[field.type]


@pytest.mark.parametrize(("ours", "theirs"), ROOTS)
def test_every_field_has_the_number_and_type_of_envoys_api(ours: type[Message], theirs: Any) -> None:
    for field, meta, owner in fields_of(ours.DESCRIPTOR, theirs):
        assert meta is not None, f"{owner.__name__} has no {field.name}"
        assert field.number == meta.number, field.full_name
        # betterproto puts the parent's name before a nested message's.
        assert their_type(field, meta, owner).endswith(our_type(field)), field.full_name
        assert (field.is_repeated and not is_map(field)) == bool(meta.repeated), field.full_name


def test_append_actions_have_envoys_numbers() -> None:
    ours = ext_proc_pb2.HeaderValueOption.HeaderAppendAction
    assert dict(ours.items()) == {
        action.name: action.value for action in core.HeaderValueOptionHeaderAppendAction
    }


HEADERS = {"headers": [{"key": ":path", "raw_value": "L3YxL/8="}, {"key": "a", "value": "\u00e9"}]}
MUTATION = {
    "set_headers": [
        {"header": {"key": "a", "raw_value": "Yg=="}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
    ],
    "remove_headers": ["c"],
}
PART = {"streamed_response": {"body": "e30=", "end_of_stream": True}}
COMMON = {"response": {"header_mutation": MUTATION, "body_mutation": PART, "clear_route_cache": True}}
METADATA = {"extproc": {"load": 1.5, "layer": "predict", "is_stream": True}}
COMMON_PROPERTIES = {
    "start_time": "2026-01-02T03:04:05.000678Z",
    "response_flags": {
        field.name: {} if field.message_type else True
        for field in access_log_pb2.ResponseFlags.DESCRIPTOR.fields
    },
    "metadata": {"filter_metadata": METADATA},
    "custom_tags": {"ttft_us": "1234"},
    "duration": "90.000005s",
    "upstream_request_attempt_count": 3,
}
LOG_ENTRY = {
    "common_properties": COMMON_PROPERTIES,
    "response": {
        "response_code": 503,
        "response_body_bytes": "2199023255552",
        "response_headers": {"retry-after": "7"},
    },
}
MODES = {"request_body_mode": "FULL_DUPLEX_STREAMED", "response_body_mode": "BUFFERED"}
MODE = {
    "request_header_mode": "SEND",
    "response_header_mode": "SEND",
    "request_body_mode": "BUFFERED",
    "response_body_mode": "STREAMED",
    "request_trailer_mode": "SKIP",
    "response_trailer_mode": "SEND",
}
CONTEXT = {"metadata_context": {"filter_metadata": METADATA}, "protocol_config": MODES}
IMMEDIATE = {"status": {"code": 503}, "headers": MUTATION, "body": "e30=", "details": "why"}

SAMPLES: list[tuple[type[Message], Any, dict[str, Any]]] = [
    *[
        (*ROOTS[0], sample)
        for side in ("request", "response")
        for sample in (
            {f"{side}_headers": {"headers": HEADERS, "end_of_stream": True}},
            {f"{side}_body": {"body": "e30=", "end_of_stream": True}},
            {f"{side}_trailers": {"trailers": HEADERS}},
        )
    ],
    *[
        (*ROOTS[1], sample)
        for side in ("request", "response")
        for sample in (
            {f"{side}_headers": COMMON, "dynamic_metadata": METADATA},
            {f"{side}_body": COMMON, "dynamic_metadata": METADATA},
            {f"{side}_trailers": {"header_mutation": MUTATION}},
        )
    ],
    (*ROOTS[0], {"request_headers": {"headers": HEADERS}, **CONTEXT}),
    (*ROOTS[1], {"request_headers": {}, "mode_override": MODE}),
    (*ROOTS[1], {"immediate_response": IMMEDIATE}),
    (*ROOTS[1], {"override_message_timeout": "2.500s"}),
    (*ROOTS[2], {"http_logs": {"log_entry": [LOG_ENTRY, {}]}}),
    (*ROOTS[3], {}),
]
"""The same content for both, in protobuf's JSON form."""


def paths_set_in(message: Message) -> Iterator[str]:
    """The full names of the fields that a message sets, at any depth; google's own excepted."""
    for field, value in message.ListFields():
        yield field.full_name
        if field.message_type is None or field.message_type.full_name.startswith("google.") or is_map(field):
            continue
        for nested in value if field.is_repeated else [value]:
            yield from paths_set_in(nested)


@pytest.mark.parametrize(("ours", "theirs", "content"), SAMPLES)
def test_envoys_api_reads_what_we_write(ours: type[Message], theirs: Any, content: dict[str, Any]) -> None:
    written = ParseDict(content, ours()).SerializeToString()
    assert theirs.parse(written) == theirs.from_dict(content)


@pytest.mark.parametrize(("ours", "theirs", "content"), SAMPLES)
def test_we_read_what_envoys_api_writes(ours: type[Message], theirs: Any, content: dict[str, Any]) -> None:
    written = bytes(theirs.from_dict(content))
    assert ours.FromString(written) == ParseDict(content, ours())


def test_no_field_is_left_out_of_these_comparisons() -> None:
    compared = {path for ours, _, content in SAMPLES for path in paths_set_in(ParseDict(content, ours()))}
    declared = {
        field.full_name for ours, theirs in ROOTS for field, _, _ in fields_of(ours.DESCRIPTOR, theirs)
    }
    assert declared - compared == set()


@pytest.mark.parametrize(
    ("file", "theirs"),
    [
        (ext_proc_pb2.DESCRIPTOR, ext_proc.ExternalProcessorBase),
        (access_log_pb2.DESCRIPTOR, log_service.AccessLogServiceBase),
    ],
)
def test_services_have_the_names_that_envoy_calls(file: Any, theirs: Any) -> None:
    ours = {
        f"/{service.full_name}/{method.name}": (method.client_streaming, method.server_streaming)
        for service in file.services_by_name.values()
        for method in service.methods
    }
    cardinalities = {
        path: (handler.cardinality.client_streaming, handler.cardinality.server_streaming)
        for path, handler in theirs().__mapping__().items()
    }
    assert ours == cardinalities


def test_health_service_is_the_one_of_grpcs_specification() -> None:
    service = health_pb2.DESCRIPTOR.services_by_name["Health"]
    assert {
        (f"/{service.full_name}/{m.name}", m.client_streaming, m.server_streaming) for m in service.methods
    } == {
        ("/grpc.health.v1.Health/Check", False, False),
        ("/grpc.health.v1.Health/Watch", False, True),
    }
    assert health_pb2.HealthCheckRequest(service="s").SerializeToString() == b"\x0a\x01s"
    for name, number in {"SERVING": 1, "NOT_SERVING": 2, "SERVICE_UNKNOWN": 3}.items():
        assert health_pb2.HealthCheckResponse(status=name).SerializeToString() == bytes([0x08, number])
