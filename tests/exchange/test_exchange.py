from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.build import CountedHeldLease, CountedLease

from extproc.errors import ProtocolError
from extproc.exchange.exchange import Exchange
from extproc.exchange.messages import (
    BodyReceived,
    Continue,
    Event,
    HeadersReceived,
    Hold,
    Instruction,
    OtherReceived,
    Phase,
    Reject,
    RouteTo,
)
from extproc.exchange.placement import Placement, Placer
from extproc.request.request import Request
from extproc.request.token_ratio import TokenRatios

HEADERS = {":path": "/v1/completions", ":method": "POST"}
HOLD = Hold(15.0)
BODY = BodyReceived(b'{"model": "m", "prompt": "hello"}')


class Books:
    """Places every request on one backend, and keeps count."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.in_flight = 0
        self.released_at_s: list[float] = []

    def place(self, request: Request, phase: Phase, now_s: float) -> Placement:
        self.requests.append(request)
        self.in_flight += 1
        return Placement(RouteTo(phase, "vllm-1"), self.lease())

    def lease(self) -> CountedLease:
        return CountedLease(self._release)

    def _release(self, now_s: float) -> None:
        self.in_flight -= 1
        self.released_at_s.append(now_s)


def new_exchange(place: Placer) -> Exchange:
    return Exchange(place, TokenRatios())


def test_headers_pass_unchanged_and_the_body_is_placed() -> None:
    books = Books()
    exchange = new_exchange(books.place)
    assert exchange.receive(HeadersReceived(HEADERS, end_of_stream=False), 1.0) == Continue(
        Phase.REQUEST_HEADERS
    )
    assert exchange.receive(BODY, 1.1) == RouteTo(Phase.REQUEST_BODY, "vllm-1")
    assert books.requests[0].model == "m"


def test_a_request_without_a_body_is_placed_by_its_headers() -> None:
    books = Books()
    exchange = new_exchange(books.place)
    instruction = exchange.receive(HeadersReceived({":path": "/v1/models"}, end_of_stream=True), 1.0)
    assert instruction == RouteTo(Phase.REQUEST_HEADERS, "vllm-1")
    assert not books.requests[0].has_body


def test_a_websocket_is_placed_by_its_headers_though_it_has_not_ended() -> None:
    books = Books()
    exchange = new_exchange(books.place)
    headers = {":path": "/v1/realtime?model=m", ":method": "GET"}
    answer = exchange.receive(HeadersReceived(headers, end_of_stream=False), 1.0)
    assert answer == RouteTo(Phase.REQUEST_HEADERS, "vllm-1")
    assert (books.requests[0].model, books.in_flight) == ("m", 1)
    exchange.end(2.0)
    assert books.in_flight == 0


@pytest.mark.parametrize(
    "headers",
    [
        {":path": "/v1/realtime", ":method": "POST"},
        {":path": "/v1/models", ":method": "GET"},
        {":path": "/v1/realtime/other", ":method": "GET"},
    ],
)
def test_the_body_of_any_other_request_is_waited_for(headers: dict[str, str]) -> None:
    exchange = new_exchange(Books().place)
    answer = exchange.receive(HeadersReceived(headers, end_of_stream=False), 1.0)
    assert answer == Continue(Phase.REQUEST_HEADERS)


def test_an_exchange_that_ends_releases_its_lease_once() -> None:
    books = Books()
    exchange = new_exchange(books.place)
    exchange.receive(HeadersReceived(HEADERS, end_of_stream=False), 1.0)
    exchange.receive(BODY, 1.1)
    exchange.end(5.0)
    exchange.end(6.0)
    assert (books.in_flight, books.released_at_s) == (0, [5.0])


def test_an_exchange_that_ends_before_its_body_holds_no_lease() -> None:
    books = Books()
    exchange = new_exchange(books.place)
    exchange.receive(HeadersReceived(HEADERS, end_of_stream=False), 1.0)
    exchange.end(2.0)
    assert (books.in_flight, books.requests) == (0, [])


def test_a_refusal_holds_no_lease() -> None:
    refusal = Reject(503, b"{}", {})
    exchange = new_exchange(lambda request, phase, now_s: Placement(refusal))
    exchange.receive(HeadersReceived(HEADERS, end_of_stream=False), 1.0)
    assert exchange.receive(BODY, 1.0) == refusal
    exchange.end(2.0)


class Full:
    """Holds every request."""

    def __init__(self) -> None:
        self.held: list[CountedHeldLease] = []
        self.given_up = 0

    def place(self, request: Request, phase: Phase, now_s: float) -> Placement:
        self.held.append(CountedHeldLease(self._give_up))
        return Placement(HOLD, self.held[-1])

    def _give_up(self, now_s: float) -> None:
        self.given_up += 1


def held(full: Full) -> tuple[Exchange, list[Instruction]]:
    """An exchange whose request is held, and what is answered later."""
    exchange = new_exchange(full.place)
    exchange.receive(HeadersReceived(HEADERS, end_of_stream=False), 1.0)
    assert exchange.receive(BODY, 1.1) == HOLD
    answers: list[Instruction] = []
    exchange.then(answers.append)
    return exchange, answers


def test_a_held_request_is_answered_once_it_is_placed_and_holds_the_new_lease_then() -> None:
    full, books = Full(), Books()
    exchange, answers = held(full)
    assert not exchange.is_placed
    full.held[0].settle(Placement(RouteTo(Phase.REQUEST_BODY, "vllm-1"), books.lease()))
    assert answers == [RouteTo(Phase.REQUEST_BODY, "vllm-1")]
    assert exchange.is_placed
    exchange.end(5.0)
    assert (books.released_at_s, full.given_up) == ([5.0], 0)


def test_an_exchange_that_ends_while_held_gives_up_waiting_once() -> None:
    full = Full()
    exchange, answers = held(full)
    exchange.end(2.0)
    exchange.end(3.0)
    assert (full.given_up, answers) == (1, [])


@pytest.mark.parametrize(
    "event", [BODY, HeadersReceived(HEADERS, False), OtherReceived(Phase.REQUEST_TRAILERS)]
)
def test_while_held_nothing_else_may_come(event: Event) -> None:
    exchange, _ = held(Full())
    with pytest.raises(ProtocolError):
        exchange.receive(event, 2.0)


def test_messages_that_were_not_asked_for_pass_unchanged() -> None:
    exchange = new_exchange(Books().place)
    assert exchange.receive(OtherReceived(Phase.RESPONSE_HEADERS), 1.0) == Continue(Phase.RESPONSE_HEADERS)


def headers_twice(exchange: Exchange) -> None:
    exchange.receive(HeadersReceived(HEADERS, end_of_stream=False), 1.0)
    exchange.receive(HeadersReceived(HEADERS, end_of_stream=False), 1.0)


def body_first(exchange: Exchange) -> None:
    exchange.receive(BODY, 1.0)


def body_twice(exchange: Exchange) -> None:
    exchange.receive(HeadersReceived(HEADERS, end_of_stream=False), 1.0)
    exchange.receive(BODY, 1.0)
    exchange.receive(BODY, 1.0)


def after_the_end(exchange: Exchange) -> None:
    exchange.end(1.0)
    exchange.receive(HeadersReceived(HEADERS, end_of_stream=False), 1.0)


@pytest.mark.parametrize("sequence", [headers_twice, body_first, body_twice, after_the_end])
def test_an_order_of_messages_that_envoy_never_sends_is_a_protocol_error(
    sequence: Callable[[Exchange], None],
) -> None:
    with pytest.raises(ProtocolError):
        sequence(new_exchange(Books().place))


events: st.SearchStrategy[Event] = st.one_of(
    st.builds(HeadersReceived, st.just(HEADERS), st.booleans()),
    st.builds(BodyReceived, st.binary(max_size=30)),
    st.builds(OtherReceived, st.sampled_from(Phase)),
)


@given(st.lists(events, max_size=6), st.integers(1, 3))
def test_in_whatever_order_messages_come_no_lease_leaks(sequence: list[Event], ends: int) -> None:
    books = Books()
    exchange = new_exchange(books.place)
    for event in sequence:
        try:
            exchange.receive(event, 1.0)
        except ProtocolError:
            break
    assert books.in_flight <= 1
    for _ in range(ends):
        exchange.end(2.0)
    assert books.in_flight == 0
