"""One HTTP exchange as Envoy's external processor sees it: events in, instructions out.

Envoy sends the request's headers, then its whole body (of a WebSocket and of gRPC none), and keeps its stream
to us open until the response has ended or the client has left: `end` is then called, and the lease given
back. No transport is known here, so that there can be several. Behind a gateway of another make the messages
are others: see `gateway_exchange`.

A request that no backend can take may be held: the first answer is Hold, and the second one comes later,
through the callback that `then` was given.
"""

from collections.abc import Mapping

from extproc.errors import ProtocolError
from extproc.exchange.held_bodies import HeldBodies
from extproc.exchange.messages import (
    BodyReceived,
    Continue,
    Event,
    HeadersReceived,
    Instruction,
    Phase,
)
from extproc.exchange.placement import Placer
from extproc.exchange.placing import Placing
from extproc.request.header_rules import USUAL, HeaderRules
from extproc.request.request import api_of, is_placed_by_headers
from extproc.request.token_ratio import TokenRatios

_WAIT_FOR_BODY = Continue(Phase.REQUEST_HEADERS)


class Exchange(Placing):
    """The state of one exchange: awaiting headers, awaiting the body, perhaps held, placed, ended."""

    __slots__ = ("_bodies", "_headers", "_held_bytes")

    def __init__(
        self,
        place: Placer,
        ratios: TokenRatios,
        rules: HeaderRules = USUAL,
        bodies: HeldBodies | None = None,
    ) -> None:
        super().__init__(place, ratios, rules)
        self._bodies = bodies
        self._held_bytes = 0
        self._headers: Mapping[str, str] | None = None

    def receive(self, event: Event, now_s: float) -> Instruction:
        """Return the answer to one event.

        Raises ProtocolError for an order of messages that Envoy never sends: headers twice, a body before
        the headers or after the placement, anything after the end.
        """
        if self._is_ended:
            raise ProtocolError("a message after the end of the exchange")
        if self._is_read and not self.is_placed:
            raise ProtocolError("a message while the request is held")
        if isinstance(event, HeadersReceived):
            return self._receive_headers(event, now_s)
        if isinstance(event, BodyReceived):
            return self._receive_body(event, now_s)
        return Continue(event.phase)

    def end(self, now_s: float) -> None:
        """End the exchange, for whatever reason; calling it again does nothing."""
        if self._held_bytes and self._bodies is not None:
            self._held_bytes = self._bodies.arrived(self._held_bytes, 0)
        super().end(now_s)

    def _receive_headers(self, event: HeadersReceived, now_s: float) -> Instruction:
        if self._headers is not None:
            raise ProtocolError("request headers came twice")
        self._headers = event.headers
        if event.end_of_stream or is_placed_by_headers(event.headers):
            return self._read(None, Phase.REQUEST_HEADERS, now_s)
        if self._bodies is not None:
            announced_bytes = self._bodies.announce(event.headers)
            if announced_bytes is None:
                self._is_read = self.is_placed = True
                return self._bodies.refuse(api_of(event.headers))
            self._held_bytes = announced_bytes
        return _WAIT_FOR_BODY

    def _receive_body(self, event: BodyReceived, now_s: float) -> Instruction:
        if self._headers is None:
            raise ProtocolError("a request body came before the headers")
        if self._is_read:
            raise ProtocolError("a request body came after the request had been read")
        if self._bodies is not None:
            self._held_bytes = self._bodies.arrived(self._held_bytes, len(event.body))
        return self._read(event.body, Phase.REQUEST_BODY, now_s)

    def _read(self, body: bytes | None, phase: Phase, now_s: float) -> Instruction:
        headers, self._headers = self._headers or {}, {}  # not needed any more
        return self._placed(headers, body, phase, now_s)
