"""Events into and instructions out of an exchange: the whole vocabulary between transport and core.

Events are past, instructions imperative. A transport translates Envoy's `ProcessingRequest` into an event
and an instruction into a `ProcessingResponse`
(https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/ext_proc/v3/external_processor.proto).

Here, and wherever several values are made for each request, a frozen `msgspec.Struct` stands in for a frozen
dataclass: with twelve fields it is made in 0.2 µs instead of 3.3 (measured).
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class Phase(StrEnum):
    """Which of Envoy's messages an instruction answers: the response must name the same one."""

    REQUEST_HEADERS = "request_headers"
    REQUEST_BODY = "request_body"
    REQUEST_TRAILERS = "request_trailers"
    RESPONSE_HEADERS = "response_headers"
    RESPONSE_BODY = "response_body"
    RESPONSE_TRAILERS = "response_trailers"


class HeadersReceived(msgspec.Struct, frozen=True):
    """The request's headers, names in lower case; `end_of_stream` means that no body follows."""

    headers: Mapping[str, str]
    end_of_stream: bool


class BodyReceived(msgspec.Struct, frozen=True):
    """The whole request body (Envoy buffers it)."""

    body: bytes


class OtherReceived(msgspec.Struct, frozen=True):
    """A message that the processing mode does not ask for; it is waved through."""

    phase: Phase


Event = HeadersReceived | BodyReceived | OtherReceived


class Continue(msgspec.Struct, frozen=True):
    """Let the exchange go on unchanged."""

    phase: Phase


class RouteTo(msgspec.Struct, frozen=True):
    """Set the headers that choose the backend, and attach the decision's features as dynamic metadata.

    Envoy hands `metadata` back with the outcome. `address` is HOST:PORT, for an Envoy that has all backends
    in one cluster; empty where it is not sent. `others` are addresses that may be tried after it.
    `prefiller`, if there is one, is the address of the server that computes the prompt for it.
    `traceparent`, if there is one, replaces the client's.
    """

    phase: Phase
    cluster: str
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)
    address: str = ""
    others: tuple[str, ...] = ()
    traceparent: str = ""
    prefiller: str = ""


class Answer(msgspec.Struct, frozen=True):
    """Answer the client at once, without a backend."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Reject(Answer, frozen=True):
    """Refuse the request."""


class Hold(msgspec.Struct, frozen=True):
    """Wait: the answer comes later, within `timeout_s`."""

    timeout_s: float


Instruction = Continue | RouteTo | Answer | Hold
