"""Events into and instructions out of an exchange behind a gateway: the Endpoint Picker Protocol.

It is that of the Gateway API Inference Extension (https://gateway-api-inference-extension.sigs.k8s.io,
proposal 004): ext_proc with bodies that stream both ways. The gateway keeps nothing of them, and what is not
handed back is lost.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum

import msgspec

from extproc.exchange.messages import Answer, Continue, Phase


class BodyMode(IntEnum):
    """How a gateway sends bodies; the numbers are those of `BodySendMode`."""

    NONE = 0
    STREAMED = 1
    BUFFERED = 2
    BUFFERED_PARTIAL = 3
    FULL_DUPLEX_STREAMED = 4


class BodyModes(msgspec.Struct, frozen=True):
    """The modes that a gateway announces with its first message."""

    request: BodyMode
    response: BodyMode


class RequestHeaders(msgspec.Struct, frozen=True):
    """The request has begun. `modes` is None where the gateway does not say how it sends bodies.

    `endpoints` are the only addresses that may be chosen, IP:PORT or IP; None where all may.
    """

    headers: Mapping[str, str]
    end_of_stream: bool
    modes: BodyModes | None = None
    endpoints: frozenset[str] | None = None


class RequestBody(msgspec.Struct, frozen=True):
    """A part of the request's body."""

    data: bytes
    end_of_stream: bool
    endpoints: frozenset[str] | None = None


class RequestTrailers(msgspec.Struct, frozen=True):
    """The request's body has ended, and trailers follow it."""

    endpoints: frozenset[str] | None = None


class ResponseHeaders(msgspec.Struct, frozen=True):
    """The response has begun; `served` is the address of the server that sent it, where the gateway says.

    `modes` are there where this is the first message: the gateway has answered by itself.
    """

    headers: Mapping[str, str]
    end_of_stream: bool
    served: str | None = None
    modes: BodyModes | None = None


class ResponseTrailers(msgspec.Struct, frozen=True):
    """The response has ended, with trailers."""


GatewayEvent = RequestHeaders | RequestBody | RequestTrailers | ResponseHeaders | ResponseTrailers
"""All but the parts of the response's body, which are too many to make an object of each."""


class Pick(msgspec.Struct, frozen=True):
    """Send the request to the first of `addresses`, or if the gateway retries, to the next ones.

    `body_bytes` is the length of the body that follows, None where the gateway knows it already.
    `traceparent`, if there is one, replaces the client's. `prefiller`, if there is one, is the address of the
    server that computes the prompt before.
    """

    phase: Phase
    addresses: tuple[str, ...]
    body_bytes: int | None = None
    traceparent: str = ""
    prefiller: str = ""


class SendBody(msgspec.Struct, frozen=True):
    """Hand back a part of the request's body."""

    data: bytes
    end_of_stream: bool


class AwaitBody(msgspec.Struct, frozen=True):
    """Let the headers pass, and have the body sent whole; the response's body is not asked for."""


class MarkResponse(msgspec.Struct, frozen=True):
    """Let the response's headers pass, with these set."""

    headers: Mapping[str, str]


class Finish(msgspec.Struct, frozen=True):
    """Take no further part in the exchange."""


GatewayInstruction = Continue | Pick | SendBody | AwaitBody | MarkResponse | Answer | Finish

Answers = Sequence[GatewayInstruction]
