"""One HTTP exchange behind a gateway that speaks the Endpoint Picker Protocol: events in, instructions out.

The gateway sends the request's headers and, part by part, its body, and waits for both to come back: nothing
is answered before the body is whole, since its model decides. Then `decide` places the request as every
exchange does (`placing`), and hands the body back. The response passes the same way, and how it began and
ended is the outcome: there is no access log.

A gateway says with its first message how it sends bodies. FULL_DUPLEX_STREAMED is the usual way. A gateway
that says nothing is taken to send bodies so, and if it half-closes, to show nothing of the response.
BUFFERED: the headers are let pass, and the body comes in one message. STREAMED: the headers are waited for,
so that the request is placed without its body being known.
"""

from collections.abc import Callable, Mapping

from extproc.errors import ProtocolError
from extproc.exchange.early_answers import bad_request, no_endpoint, too_large, too_much_at_once
from extproc.exchange.gateway_messages import (
    Answers,
    AwaitBody,
    BodyMode,
    BodyModes,
    Finish,
    GatewayEvent,
    MarkResponse,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseTrailers,
    SendBody,
)
from extproc.exchange.gateway_parts import GatewayParts
from extproc.exchange.messages import Answer, Continue, Hold, Instruction, Phase, RouteTo
from extproc.exchange.placing import Placing
from extproc.exchange.request_body import RequestBodyParts, pick_of, whole_request
from extproc.exchange.response_watch import ResponseWatch
from extproc.outcomes.facts import BACKEND_KEY, LAYER_KEY, PREFILLER_KEY, REASON_KEY
from extproc.outcomes.outcome import LogEntry
from extproc.request.guessed_path import with_path
from extproc.request.request import is_upgrade

_FULL_DUPLEX = BodyModes(BodyMode.FULL_DUPLEX_STREAMED, BodyMode.FULL_DUPLEX_STREAMED)
_WHOLE = frozenset({BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL})
_SHOWN = (BACKEND_KEY, LAYER_KEY, REASON_KEY, PREFILLER_KEY)


class GatewayExchange(Placing):
    """The state of one exchange; `is_ready` while its request can be decided about, and is not yet.

    `late` takes answers that follow from no event of its own.
    """

    __slots__ = (
        "_attempts",
        "_body",
        "_endpoints",
        "_hands_back",
        "_has_trailers",
        "_headers",
        "_is_upgrade",
        "_modes",
        "_parts",
        "_placed_s",
        "_route",
        "_watch",
        "is_announced",
        "is_ready",
        "late",
    )

    def __init__(self, parts: GatewayParts) -> None:
        super().__init__(parts.place, parts.ratios, parts.rules)
        self._parts = parts
        self._body = RequestBodyParts(parts.collected, self._without_room)
        self._watch = ResponseWatch()
        self._headers: Mapping[str, str] | None = None
        self._endpoints: frozenset[str] | None = None
        self._modes = _FULL_DUPLEX
        self._hands_back = True
        self._route: RouteTo | None = None
        self._placed_s = 0.0
        self._attempts = 1
        self._has_trailers = self._is_upgrade = self.is_announced = self.is_ready = False
        self.late: Callable[[Answers], None] | None = None

    @property
    def body_bytes(self) -> int:
        """The length of the request's body, as far as it has come."""
        return self._body.size

    @property
    def is_held(self) -> bool:
        """Whether the request waits in the queue."""
        return self._is_read and not self.is_placed

    @property
    def is_response_shown(self) -> bool:
        """Whether the exchange ends with the response; else with the request, or a moment after it."""
        return self.is_announced and not self._parts.ends_after_request

    def receive(self, event: GatewayEvent, now_s: float) -> Answers:
        """Return the answers to one event; ProtocolError where it can have no place in any order."""
        if self._is_ended:
            raise ProtocolError("a message after the end of the exchange")
        if isinstance(event, RequestHeaders):
            return self._receive_headers(event)
        if isinstance(event, ResponseHeaders | ResponseTrailers):
            return self._receive_response(event, now_s)
        if self._headers is None:
            raise ProtocolError("a part of a request before its headers")
        if isinstance(event, RequestBody):
            return self._receive_body(event)
        return self._receive_trailers(event)

    def pass_response(self, data: bytes, end_of_stream: bool, now_s: float) -> bool:
        """Note a part of the response's body; return whether it has to be handed back.

        This is the only event that comes once for each token, and no object is made for it.
        """
        if self._watch.passed(data, end_of_stream, now_s):
            self._begin_answer(now_s)
        return self._hands_back

    def decide(self, now_s: float) -> Answers:
        """Place the request, which is ready; nothing is answered yet where it is held."""
        self.is_ready = False
        headers, self._headers = self._headers or {}, {}  # not needed any more
        has_body = self._body.is_ended or self._modes.request is BodyMode.STREAMED
        if self.is_announced and self._modes.request is BodyMode.FULL_DUPLEX_STREAMED:
            self._body.replace(self._parts.rewrite(self._body.whole()))
        body = self._body.whole() if has_body else None
        if body is not None:
            headers = with_path(headers, body)
        phase = Phase.REQUEST_BODY if self._modes.request in _WHOLE and has_body else Phase.REQUEST_HEADERS
        instruction = self._placed(headers, body, phase, now_s, self._endpoints)
        return () if isinstance(instruction, Hold) else self.settled(instruction, now_s)

    def settled(self, instruction: Instruction, now_s: float) -> Answers:
        """Return the answers that follow from a placement, at once or after the request was held."""
        body = self._body.take()
        if not isinstance(instruction, RouteTo):
            return (instruction, Finish()) if isinstance(instruction, Answer) else (no_endpoint(), Finish())
        self._route, self._placed_s = instruction, now_s
        answers = self._handed_back(instruction, body)
        return (*answers, Finish()) if self._parts.ends_after_request else answers

    def end(self, now_s: float) -> None:
        """End the exchange, for whatever reason; calling it again does nothing."""
        self._body.take()
        super().end(now_s)

    def entry(self, now_s: float, at_s: float) -> LogEntry | None:
        """Return what an access log would have of the exchange, which has ended; None where nothing is known.

        `at_s` is now as a unix time.
        """
        if self._route is None or not self.is_response_shown:
            return None
        watch = self._watch
        if watch.status and not watch.has_body and self._modes.request in _WHOLE:
            watch.is_complete = True  # its body was not asked for
        return watch.entry(self._route.metadata, self._placed_s, self._attempts, now_s, at_s)

    def _receive_headers(self, event: RequestHeaders) -> Answers:
        if self._headers is not None or self._is_read:
            raise ProtocolError("request headers came twice, or after the response's")
        self._headers = event.headers
        self._endpoints = event.endpoints
        self._announced(event.modes)
        mode = self._modes.request
        self._is_upgrade = is_upgrade(event.headers)
        is_bodyless = event.end_of_stream or mode is BodyMode.NONE or self._is_upgrade
        self.is_ready = is_bodyless or mode is BodyMode.STREAMED
        if is_bodyless and not self._is_upgrade:
            self._modes = BodyModes(BodyMode.NONE, self._modes.response)
        return (AwaitBody(),) if mode in _WHOLE and not is_bodyless else ()

    def _announced(self, modes: BodyModes | None) -> None:
        if modes is not None:
            self._modes, self.is_announced = modes, True
            self._hands_back = modes.response is BodyMode.FULL_DUPLEX_STREAMED

    def _receive_body(self, event: RequestBody) -> Answers:
        """Collect the body. Parts after its end do not count: some Envoys send the last part twice.

        On a WebSocket each part is handed back as it comes.
        """
        if self._is_upgrade and self._modes.request is BodyMode.FULL_DUPLEX_STREAMED:
            return (SendBody(event.data, event.end_of_stream),)
        if self._modes.request is BodyMode.STREAMED:
            return (Continue(Phase.REQUEST_BODY),)
        return () if self._body.is_ended or self._is_read else self._collect(event)

    def _collect(self, event: RequestBody) -> Answers:
        body = self._body
        if event.endpoints is not None:
            self._endpoints = event.endpoints
        body.add(event.data)
        if body.is_too_large and not body.is_ended:
            return self._refused(too_large())
        if not event.end_of_stream and self._modes.request is BodyMode.BUFFERED_PARTIAL:
            return self._body_ended(is_whole=False)
        is_last = event.end_of_stream or self._modes.request in _WHOLE
        return self._body_ended() if is_last and not body.is_ended else ()

    def _receive_trailers(self, event: RequestTrailers) -> Answers:
        if event.endpoints is not None:
            self._endpoints = event.endpoints
        if self._body.is_ended or self._is_read:
            return (Continue(Phase.REQUEST_TRAILERS),)
        if self._modes.request in _WHOLE:  # its headers are on their way, and can be told nothing any more
            return self._refused(bad_request("The request has trailers, and no body."))
        self._has_trailers = True
        return self._body_ended()

    def _body_ended(self, *, is_whole: bool = True) -> Answers:
        self._body.end()
        if is_whole and not self._body.may_be_of(self._headers or {}):
            return self._refused(bad_request("The body is not as long as its content-length says."))
        self.is_ready = True
        return ()

    def _receive_response(self, event: ResponseHeaders | ResponseTrailers, now_s: float) -> Answers:
        if isinstance(event, ResponseTrailers):
            self._watch.is_complete = True
            return (Continue(Phase.RESPONSE_TRAILERS),)
        if self._headers is None:
            self._announced(event.modes)
        self._watch.begun(event.headers, event.end_of_stream, now_s)
        if self._route is None:  # the gateway has answered by itself, before us
            self._give_up(now_s)
            return (Continue(Phase.RESPONSE_HEADERS),)
        self._follow(event.served, now_s)
        metadata = self._route.metadata
        marks = {f"x-extproc-{key}": metadata[key] for key in _SHOWN if key in metadata}
        return (MarkResponse(marks),)

    def _begin_answer(self, now_s: float) -> None:
        if self._lease is not None and self._watch.status == 200:
            self._lease.answered(now_s)

    def _follow(self, served: str | None, now_s: float) -> None:
        """Book the request on the server that has served it, where the gateway has sent it elsewhere."""
        if served is None or self._route is None or self._lease is None or served == self._route.address:
            return
        if self._parts.served_elsewhere(self._lease, served, now_s):
            self._attempts = 2

    def _handed_back(self, route: RouteTo, body: bytes) -> Answers:
        """Return the answers to all that was received of the request, its body included."""
        if self._modes.request is BodyMode.FULL_DUPLEX_STREAMED and not self._is_upgrade:
            return whole_request(route, body, self._has_trailers)
        return (pick_of(route),)

    def _without_room(self) -> None:
        answers = self._refused(too_much_at_once())
        if self.late is not None:
            self.late(answers)

    def _refused(self, answer: Answer) -> Answers:
        self._body.take()
        self._body.is_ended = self._is_read = self.is_placed = True
        return (answer, Finish())

    def _give_up(self, now_s: float) -> None:
        self.is_ready = False
        self._then = None
        self._is_read = self.is_placed = True
        self._body.take()
        if self._lease is not None:
            self._lease.end(now_s)
