"""One HTTP exchange as Envoy's external processor sees it: events in, instructions out.

Envoy sends the request's headers, then its whole body (of a WebSocket none), and keeps the gRPC stream open
until the response has ended or the client has left: `end` is then called, and the lease given back. No
transport is known here, so that there can be several.

A request that no backend can take may be held: the first answer is Hold, and the second one comes later,
through the callback that `then` was given.
"""

from collections.abc import Callable, Mapping

from extproc.errors import ProtocolError
from extproc.exchange.held_bodies import HeldBodies
from extproc.exchange.messages import (
    BodyReceived,
    Continue,
    Event,
    HeadersReceived,
    Instruction,
    OtherReceived,
    Phase,
)
from extproc.exchange.placement import HeldLease, Lease, Placement, Placer
from extproc.request.header_rules import USUAL, HeaderRules
from extproc.request.request import api_of, is_upgrade, read_request
from extproc.request.token_ratio import TokenRatios


class Exchange:
    """The state of one exchange: awaiting headers, awaiting the body, perhaps held, placed, ended."""

    __slots__ = (
        "_bodies",
        "_headers",
        "_held_bytes",
        "_is_ended",
        "_is_read",
        "_lease",
        "_place",
        "_ratios",
        "_rules",
        "_then",
        "is_placed",
    )

    def __init__(
        self,
        place: Placer,
        ratios: TokenRatios,
        rules: HeaderRules = USUAL,
        bodies: HeldBodies | None = None,
    ) -> None:
        self._bodies = bodies
        self._held_bytes = 0
        self._place = place
        self._ratios = ratios
        self._rules = rules
        self._then: Callable[[Instruction], None] | None = None
        self._headers: Mapping[str, str] | None = None
        self._lease: Lease | None = None
        self._is_ended = False
        self._is_read = False
        self.is_placed = False

    def receive(self, event: Event, now_s: float) -> Instruction:
        """Return the answer to one event.

        Raises ProtocolError for an order of messages that Envoy never sends: headers twice, a body before
        the headers or after the placement, anything after the end.
        """
        if self._is_ended:
            raise ProtocolError("a message after the end of the exchange")
        if self._is_read and not self.is_placed:
            raise ProtocolError("a message while the request is held")
        match event:
            case HeadersReceived():
                return self._receive_headers(event, now_s)
            case BodyReceived():
                return self._receive_body(event, now_s)
            case OtherReceived():
                return Continue(event.phase)

    def end(self, now_s: float) -> None:
        """End the exchange, for whatever reason; calling it again does nothing."""
        self._is_ended = True
        self._then = None
        if self._held_bytes and self._bodies is not None:
            self._held_bytes = self._bodies.arrived(self._held_bytes, 0)
        if self._lease is not None:
            self._lease.end(now_s)

    def then(self, answer: Callable[[Instruction], None]) -> None:
        """Set the callback for the second answer, after Hold was the first; not called after the end."""
        self._then = answer

    def _receive_headers(self, event: HeadersReceived, now_s: float) -> Instruction:
        if self._headers is not None:
            raise ProtocolError("request headers came twice")
        self._headers = event.headers
        if event.end_of_stream or is_upgrade(event.headers):
            return self._placed(None, Phase.REQUEST_HEADERS, now_s)
        if self._bodies is not None:
            announced_bytes = self._bodies.announce(event.headers)
            if announced_bytes is None:
                self._is_read = self.is_placed = True
                return self._bodies.refuse(api_of(event.headers))
            self._held_bytes = announced_bytes
        return Continue(Phase.REQUEST_HEADERS)

    def _receive_body(self, event: BodyReceived, now_s: float) -> Instruction:
        if self._headers is None:
            raise ProtocolError("a request body came before the headers")
        if self._is_read:
            raise ProtocolError("a request body came after the request had been read")
        if self._bodies is not None:
            self._held_bytes = self._bodies.arrived(self._held_bytes, len(event.body))
        return self._placed(event.body, Phase.REQUEST_BODY, now_s)

    def _placed(self, body: bytes | None, phase: Phase, now_s: float) -> Instruction:
        request = read_request(self._headers or {}, body, self._ratios, self._rules)
        self._headers = {}  # not needed any more
        self._is_read = True
        placement = self._place(request, phase, now_s)
        self._lease = placement.lease
        if isinstance(placement.lease, HeldLease):
            placement.lease.respond = self._settle
        else:
            self.is_placed = True
        return placement.instruction

    def _settle(self, placement: Placement) -> None:
        self._lease = placement.lease
        self.is_placed = True
        then, self._then = self._then, None
        if then is not None:
            then(placement.instruction)
