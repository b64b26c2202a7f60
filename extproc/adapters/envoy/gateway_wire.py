"""Between messages of the Endpoint Picker Protocol on the wire and events and instructions of an exchange.

As `ext_proc_wire`, for gateways whose bodies stream both ways. Parts of bodies have a module of their own:
`body_parts`.
"""

from functools import lru_cache

from google.protobuf.message import DecodeError

from extproc.adapters.envoy.body_parts import framed, request_part
from extproc.adapters.envoy.ext_proc_wire import TRACE_HEADER, overwrite, read_headers
from extproc.adapters.envoy.ext_proc_wire import encode as encode_instruction
from extproc.adapters.envoy.protobuf_bytes import length_delimited
from extproc.adapters.protos import ext_proc_pb2 as pb
from extproc.errors import ProtocolError
from extproc.exchange.gateway_messages import (
    AwaitBody,
    BodyMode,
    BodyModes,
    GatewayEvent,
    GatewayInstruction,
    MarkResponse,
    Pick,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseTrailers,
    SendBody,
)
from extproc.exchange.messages import Answer, Continue, Phase

DESTINATION = "x-gateway-destination-endpoint"
METADATA_NAMESPACE = "envoy.lb"
SUBSET_NAMESPACE, SUBSET_KEY = "envoy.lb.subset_hint", f"{DESTINATION}-subset"
SERVED_KEY = f"{DESTINATION}-served"

PREFILLER = "x-prefiller-host-port"
"""Read by the routing sidecar of llm-d in front of the server that answers: where to prefill first."""

CONTROL_HEADERS = (
    SUBSET_KEY,
    SERVED_KEY,
    f"{DESTINATION}-fallback",
    f"{DESTINATION}-scores",
    PREFILLER,
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
)
"""By which routers tell each other where a request goes: a client must not be able to."""

_TAGS = {Phase.REQUEST_HEADERS: b"\x0a", Phase.REQUEST_BODY: b"\x1a"}  # in ProcessingResponse
_MUTATION, _RESPONSE, _CLEAR_ROUTE_CACHE = b"\x12", b"\x0a", b"\x28\x01"  # in CommonResponse, and around it


def decode(message: bytes) -> GatewayEvent | None:
    """Read one `ProcessingRequest`; None for a part of the response's body.

    Raises ProtocolError for bytes that are no such message.
    """
    try:
        request = pb.ProcessingRequest.FromString(message)
    except DecodeError as error:
        raise ProtocolError(f"ext_proc: not a ProcessingRequest: {error}") from error
    match request.WhichOneof("request"):
        case "request_body":
            body = request.request_body
            return RequestBody(body.body, body.end_of_stream, _endpoints(request))
        case "request_headers":
            received = request.request_headers
            headers = read_headers(received.headers)
            return RequestHeaders(headers, received.end_of_stream, _modes(request), _endpoints(request))
        case "response_headers":
            received = request.response_headers
            headers = read_headers(received.headers)
            return ResponseHeaders(headers, received.end_of_stream, _served(request), _modes(request))
        case "request_trailers":
            return RequestTrailers(_endpoints(request))
        case "response_trailers":
            return ResponseTrailers()
        case "response_body":
            return None
        case _:
            raise ProtocolError("ext_proc: a ProcessingRequest without a phase that is known here")


def encode(instruction: GatewayInstruction) -> bytes:
    """Write one `ProcessingResponse`."""
    if isinstance(instruction, SendBody):
        return request_part(instruction)
    if isinstance(instruction, Pick):
        return _pick(instruction)
    if isinstance(instruction, MarkResponse):
        return _mark(tuple(instruction.headers.items()))
    if isinstance(instruction, AwaitBody):
        return _AWAIT_BODY
    if isinstance(instruction, Continue | Answer):
        return encode_instruction(instruction)
    raise ProtocolError("nothing is sent for it")


def _modes(request: pb.ProcessingRequest) -> BodyModes | None:
    if not request.HasField("protocol_config"):
        return None
    config = request.protocol_config
    return BodyModes(_mode(config.request_body_mode), _mode(config.response_body_mode))


def _mode(number: int) -> BodyMode:
    try:
        return BodyMode(number)
    except ValueError as error:
        raise ProtocolError(f"ext_proc: an unknown mode of sending bodies, {number}") from error


def _endpoints(request: pb.ProcessingRequest) -> frozenset[str] | None:
    """Return the addresses that the gateway allows, in any form that is in use: a list, or a text of them."""
    namespaces = request.metadata_context.filter_metadata
    if SUBSET_NAMESPACE not in namespaces:  # reading a missing key would add it
        return None
    fields = namespaces[SUBSET_NAMESPACE].fields
    if SUBSET_KEY not in fields:
        return None
    hint = fields[SUBSET_KEY]
    is_list = hint.WhichOneof("kind") == "list_value"
    texts = [value.string_value for value in hint.list_value.values] if is_list else [hint.string_value]
    addresses = (address.strip() for text in texts for address in text.split(","))
    return frozenset(_without_port(address) for address in addresses if address)


def _without_port(address: str) -> str:
    """Return an IPv6 address that has no port as hosts are written; any other as it is."""
    return address[1:-1] if address.startswith("[") and address.endswith("]") else address


def _served(request: pb.ProcessingRequest) -> str | None:
    namespaces = request.metadata_context.filter_metadata
    if METADATA_NAMESPACE not in namespaces:
        return None
    fields = namespaces[METADATA_NAMESPACE].fields
    return (fields[SERVED_KEY].string_value or None) if SERVED_KEY in fields else None


def _pick(instruction: Pick) -> bytes:
    """Join the bytes of header mutations, as Protobuf allows: one of them is often the same."""
    mutation = _destination(instruction.addresses, instruction.prefiller)
    if instruction.body_bytes is not None:
        mutation += _length(instruction.body_bytes)
    if instruction.traceparent:
        mutation += _header(TRACE_HEADER, instruction.traceparent)
    common = length_delimited(_MUTATION, mutation) + _CLEAR_ROUTE_CACHE
    frames = framed((_RESPONSE, _TAGS[instruction.phase]), len(common))
    return frames + common + _metadata(instruction.addresses)


@lru_cache(maxsize=8192)
def _destination(addresses: tuple[str, ...], prefiller: str) -> bytes:
    """Return the mutation; a header that is set is not removed as well, whichever a gateway does first."""
    removed = [name for name in CONTROL_HEADERS if not prefiller or name != PREFILLER]
    mutation = pb.HeaderMutation(remove_headers=removed)
    overwrite(mutation, DESTINATION, ",".join(addresses))
    if prefiller:
        overwrite(mutation, PREFILLER, prefiller)
    return mutation.SerializeToString()


@lru_cache(maxsize=1024)
def _length(body_bytes: int) -> bytes:
    return _header("content-length", str(body_bytes))


def _header(name: str, value: str) -> bytes:
    mutation = pb.HeaderMutation()
    overwrite(mutation, name, value)
    return mutation.SerializeToString()


@lru_cache(maxsize=8192)
def _metadata(addresses: tuple[str, ...]) -> bytes:
    response = pb.ProcessingResponse()
    values = response.dynamic_metadata.fields[METADATA_NAMESPACE].struct_value.fields
    values[DESTINATION].string_value = ",".join(addresses)
    return response.SerializeToString()


@lru_cache(maxsize=8192)
def _mark(headers: tuple[tuple[str, str], ...]) -> bytes:
    response = pb.ProcessingResponse()
    common = response.response_headers.response
    for name, value in headers:
        overwrite(common.header_mutation, name, value)
    response.response_headers.SetInParent()
    return response.SerializeToString()


def _await_body() -> bytes:
    """Let the headers pass. Where it may say so, it asks for the response's end, and not for its body."""
    response = pb.ProcessingResponse()
    response.request_headers.SetInParent()
    mode = response.mode_override
    mode.response_header_mode = mode.response_trailer_mode = mode.SEND
    mode.request_body_mode, mode.response_body_mode = mode.BUFFERED, mode.NONE
    return response.SerializeToString()


_AWAIT_BODY = _await_body()
