"""Exchanges behind a gateway, and the books of what they placed; no sockets."""

from typing import Any

from support.build import CountedHeldLease, CountedLease

from extproc.exchange.gateway_exchange import GatewayExchange
from extproc.exchange.gateway_messages import (
    BodyMode,
    BodyModes,
    Finish,
    GatewayInstruction,
    Pick,
    RequestBody,
    RequestHeaders,
    SendBody,
)
from extproc.exchange.gateway_parts import GatewayParts
from extproc.exchange.messages import Hold, Phase, RouteTo
from extproc.exchange.placement import Lease, Placement
from extproc.exchange.request_body import CollectedBytes
from extproc.request.header_rules import USUAL
from extproc.request.request import Request
from extproc.request.token_ratio import TokenRatios

ADDRESS = "10.0.0.1:8000"
BODY = b'{"model": "m", "prompt": "hello"}'
HEADERS = {":path": "/v1/completions", ":method": "POST"}
MODES = {
    mode: BodyModes(mode, mode)
    for mode in (BodyMode.FULL_DUPLEX_STREAMED, BodyMode.BUFFERED, BodyMode.STREAMED)
}
DUPLEX = MODES[BodyMode.FULL_DUPLEX_STREAMED]


class GatewayBooks:
    """Places every request at one address, or holds it while `is_full`, and keeps count."""

    def __init__(self, max_body_bytes: int = 1 << 20, max_bytes: int = 8 << 20, **parts: Any) -> None:
        self.requests: list[Request] = []
        self.in_flight = 0
        self.is_full = False
        self.held: list[CountedHeldLease] = []
        self.given_up = 0
        self.moved: list[tuple[Lease, str]] = []
        self.placement: Placement | None = None
        self.collected = CollectedBytes(max_body_bytes, max_bytes)
        self.parts = GatewayParts(self.place, self.move, TokenRatios(), USUAL, self.collected, **parts)

    def exchange(self) -> GatewayExchange:
        return GatewayExchange(self.parts)

    def place(self, request: Request, phase: Phase, now_s: float) -> Placement:
        self.requests.append(request)
        if self.placement is not None:
            return self.placement
        if self.is_full:
            held = CountedHeldLease(self._give_up)
            self.held.append(held)
            return Placement(Hold(15.0), held)
        return self.placed(phase)

    def placed(self, phase: Phase) -> Placement:
        self.in_flight += 1
        metadata = {"backend": "vllm-1", "layer": "least_load", "reason": "low_zone"}
        return Placement(RouteTo(phase, "vllm-1", metadata, ADDRESS), CountedLease(self._release))

    def move(self, lease: Lease, address: str, now_s: float) -> bool:
        self.moved.append((lease, address))
        return address.startswith("10.")

    def _release(self, now_s: float) -> None:
        self.in_flight -= 1

    def _give_up(self, now_s: float) -> None:
        self.given_up += 1


def begun(
    exchange: GatewayExchange, modes: BodyModes | None = DUPLEX, **headers: str
) -> list[GatewayInstruction]:
    """The answers to the headers of a request whose body follows."""
    event = RequestHeaders(HEADERS | headers, False, modes)
    return list(exchange.receive(event, 1.0))


def answered(exchange: GatewayExchange, *parts: bytes, now_s: float = 1.1) -> list[GatewayInstruction]:
    """The answers to a body in these parts, the last of which ends it."""
    answers: list[GatewayInstruction] = []
    for number, part in enumerate(parts, 1):
        answers += exchange.receive(RequestBody(part, number == len(parts)), now_s)
    if exchange.is_ready:
        answers += exchange.decide(now_s)
    return answers


def returned_body(answers: list[GatewayInstruction]) -> bytes:
    return b"".join(answer.data for answer in answers if isinstance(answer, SendBody))


def picked(answers: list[GatewayInstruction]) -> Pick:
    return next(answer for answer in answers if isinstance(answer, Pick))


def is_finished(answers: list[GatewayInstruction]) -> bool:
    return any(isinstance(answer, Finish) for answer in answers)
