"""Events into and instructions out of an exchange: the whole vocabulary between transport and core.

Events are past, instructions imperative. A transport translates Envoy's `ProcessingRequest` into an event
and an instruction into a `ProcessingResponse`
(https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/ext_proc/v3/external_processor.proto).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Phase(Enum):
    """Which of Envoy's messages an instruction answers: the response must name the same one."""

    REQUEST_HEADERS = "request_headers"
    REQUEST_BODY = "request_body"
    REQUEST_TRAILERS = "request_trailers"
    RESPONSE_HEADERS = "response_headers"
    RESPONSE_BODY = "response_body"
    RESPONSE_TRAILERS = "response_trailers"


@dataclass(frozen=True, slots=True)
class HeadersReceived:
    """The request's headers, names in lower case; `end_of_stream` means that no body follows."""

    headers: Mapping[str, str]
    end_of_stream: bool


@dataclass(frozen=True, slots=True)
class BodyReceived:
    """The whole request body (Envoy buffers it)."""

    body: bytes


@dataclass(frozen=True, slots=True)
class OtherReceived:
    """A message that the processing mode does not ask for; it is waved through."""

    phase: Phase


Event = HeadersReceived | BodyReceived | OtherReceived


@dataclass(frozen=True, slots=True)
class Continue:
    """Let the exchange go on unchanged."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class RouteTo:
    """Set the cluster header, and attach the decision's features as dynamic metadata.

    `metadata` maps names to numbers, strings or booleans; Envoy hands it back with the outcome.
    """

    phase: Phase
    cluster: str
    metadata: Mapping[str, float | str | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reject:
    """Answer the client at once, without a backend."""

    status: int
    body: bytes
    headers: Mapping[str, str]


Instruction = Continue | RouteTo | Reject
