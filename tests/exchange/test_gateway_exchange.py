import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.build_gateway import (
    ADDRESS,
    BODY,
    DUPLEX,
    HEADERS,
    MODES,
    GatewayBooks,
    answered,
    begun,
    is_finished,
    picked,
    returned_body,
)

from extproc.errors import ProtocolError
from extproc.exchange.gateway_exchange import GatewayExchange
from extproc.exchange.gateway_messages import (
    AwaitBody,
    BodyMode,
    BodyModes,
    Finish,
    MarkResponse,
    Pick,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseTrailers,
    SendBody,
)
from extproc.exchange.messages import Answer, Continue, Phase, Reject, RouteTo
from extproc.exchange.placement import Placement
from extproc.outcomes.outcome import STREAM_ERROR_KEY
from extproc.outcomes.response_end import TokenUsage
from extproc.outcomes.server_times import DECODE_TAG, HEADERS_TAG, TTFT_TAG

SSE = {":status": "200", "content-type": "text/event-stream"}


def test_nothing_is_answered_before_the_body_is_whole_and_then_all_of_it() -> None:
    books = GatewayBooks()
    exchange = books.exchange()
    assert begun(exchange) == []
    assert answered(exchange, BODY) == [
        Pick(Phase.REQUEST_HEADERS, (ADDRESS,), len(BODY)),
        SendBody(BODY, end_of_stream=True),
    ]
    assert (books.requests[0].model, books.requests[0].api.kind) == ("m", "completion")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_body_in_parts_of_any_size_comes_back_whole(size: int) -> None:
    books = GatewayBooks()
    exchange = books.exchange()
    begun(exchange)
    body = json.dumps({"model": "m", "prompt": "word " * 400}).encode()
    answers = answered(exchange, *(body[at : at + size] for at in range(0, len(body), size)))
    assert returned_body(answers) == body
    assert books.requests[0].model == "m"
    assert books.collected.held_bytes == 0


def test_a_large_body_is_cut_into_parts_that_every_gateway_takes() -> None:
    exchange = GatewayBooks().exchange()
    begun(exchange)
    parts = [answer for answer in answered(exchange, bytes(200_000)) if isinstance(answer, SendBody)]
    assert [len(part.data) for part in parts] == [62_000, 62_000, 62_000, 14_000]
    assert [part.end_of_stream for part in parts] == [False, False, False, True]


def test_an_empty_body_comes_back_as_one_empty_part() -> None:
    exchange = GatewayBooks().exchange()
    begun(exchange)
    assert answered(exchange, b"") == [
        Pick(Phase.REQUEST_HEADERS, (ADDRESS,)),
        SendBody(b"", end_of_stream=True),
    ]


def test_a_request_without_a_body_is_answered_at_once() -> None:
    books = GatewayBooks()
    exchange = books.exchange()
    exchange.receive(RequestHeaders({":path": "/health", ":method": "GET"}, True, DUPLEX), 1.0)
    assert exchange.is_ready
    assert exchange.decide(1.0) == (Pick(Phase.REQUEST_HEADERS, (ADDRESS,)),)
    assert not books.requests[0].has_body


def test_a_websocket_is_placed_at_once_and_what_it_says_is_handed_back() -> None:
    books = GatewayBooks()
    exchange = books.exchange()
    headers = {":path": "/v1/realtime?model=m", ":method": "GET"}
    exchange.receive(RequestHeaders(headers, False, DUPLEX), 1.0)
    assert exchange.decide(1.0) == (Pick(Phase.REQUEST_HEADERS, (ADDRESS,)),)
    assert books.requests[0].model == "m"
    assert list(exchange.receive(RequestBody(b"said", False), 1.1)) == [SendBody(b"said", False)]
    assert list(exchange.receive(RequestBody(b"", True), 1.2)) == [SendBody(b"", True)]


def test_trailers_end_the_body_and_are_answered_after_it() -> None:
    exchange = GatewayBooks().exchange()
    begun(exchange)
    assert list(exchange.receive(RequestBody(BODY, False), 1.0)) == []
    assert list(exchange.receive(RequestTrailers(), 1.0)) == []
    assert exchange.decide(1.0) == (
        Pick(Phase.REQUEST_HEADERS, (ADDRESS,)),
        SendBody(BODY, end_of_stream=False),
        Continue(Phase.REQUEST_TRAILERS),
    )


def test_trailers_of_a_request_without_a_body_are_answered_alone() -> None:
    exchange = GatewayBooks().exchange()
    begun(exchange)
    assert list(exchange.receive(RequestTrailers(), 1.0)) == []
    assert exchange.decide(1.0) == (
        Pick(Phase.REQUEST_HEADERS, (ADDRESS,)),
        Continue(Phase.REQUEST_TRAILERS),
    )


def test_a_gateway_that_buffers_is_told_too_late_where_trailers_come_without_a_body() -> None:
    books = GatewayBooks()
    exchange = books.exchange()
    begun(exchange, MODES[BodyMode.BUFFERED])
    refusal, finish = exchange.receive(RequestTrailers(), 1.0)
    assert isinstance(refusal, Reject)
    assert (refusal.status, finish, exchange.is_ready) == (400, Finish(), False)


def test_a_last_part_that_comes_twice_counts_once() -> None:
    books = GatewayBooks()
    exchange = books.exchange()
    begun(exchange)
    exchange.receive(RequestBody(BODY, True), 1.0)
    assert list(exchange.receive(RequestBody(b"", True), 1.0)) == []
    assert returned_body(list(exchange.decide(1.0))) == BODY
    assert list(exchange.receive(RequestBody(BODY, True), 1.2)) == []
    assert books.in_flight == 1


def test_a_gateway_that_buffers_gets_the_choice_with_the_body_and_no_body_back() -> None:
    exchange = GatewayBooks().exchange()
    assert begun(exchange, MODES[BodyMode.BUFFERED]) == [AwaitBody()]
    assert answered(exchange, BODY) == [Pick(Phase.REQUEST_BODY, (ADDRESS,))]


def test_a_gateway_that_has_no_room_for_a_body_sends_its_beginning_and_that_is_enough() -> None:
    modes = BodyModes(BodyMode.BUFFERED_PARTIAL, BodyMode.NONE)
    exchange = GatewayBooks().exchange()
    begun(exchange, modes, **{"content-length": "1000"})
    assert list(exchange.receive(RequestBody(BODY, False), 1.0)) == []
    assert exchange.decide(1.0) == (Pick(Phase.REQUEST_BODY, (ADDRESS,)),)


def test_a_gateway_that_streams_one_way_gets_the_choice_with_the_headers() -> None:
    books = GatewayBooks()
    exchange = books.exchange()
    assert begun(exchange, MODES[BodyMode.STREAMED]) == []
    assert exchange.decide(1.0) == (Pick(Phase.REQUEST_HEADERS, (ADDRESS,)),)
    assert books.requests[0].has_body
    assert list(exchange.receive(RequestBody(BODY, True), 1.1)) == [Continue(Phase.REQUEST_BODY)]


def test_a_gateway_that_sends_no_bodies_gets_the_choice_with_the_headers() -> None:
    exchange = GatewayBooks().exchange()
    begun(exchange, BodyModes(BodyMode.NONE, BodyMode.NONE))
    assert exchange.decide(1.0) == (Pick(Phase.REQUEST_HEADERS, (ADDRESS,)),)


def test_without_a_path_the_body_decides_the_api() -> None:
    books = GatewayBooks()
    exchange = books.exchange()
    exchange.receive(RequestHeaders({"content-type": "application/json"}, False), 1.0)
    answered(exchange, b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "x"}]}')
    request = books.requests[0]
    assert (request.api.kind, request.model, request.is_stream) == ("chat", "m", True)
    assert not exchange.is_response_shown


def test_the_last_hint_of_allowed_endpoints_counts() -> None:
    books = GatewayBooks()
    exchange = books.exchange()
    exchange.receive(RequestHeaders(HEADERS, False, DUPLEX, frozenset({"10.0.0.9:1"})), 1.0)
    exchange.receive(RequestBody(BODY, True, frozenset({ADDRESS})), 1.0)
    exchange.decide(1.0)
    assert books.requests[0].endpoints == {ADDRESS}


def test_a_body_beyond_the_limit_is_refused_and_what_follows_ignored() -> None:
    books = GatewayBooks(max_body_bytes=100)
    exchange = books.exchange()
    begun(exchange)
    refusal, end = exchange.receive(RequestBody(bytes(101), False), 1.0)
    assert (isinstance(refusal, Reject) and refusal.status, end) == (413, Finish())
    assert list(exchange.receive(RequestBody(bytes(101), True), 1.0)) == []
    assert (books.requests, books.collected.held_bytes) == ([], 0)


def test_where_there_is_no_room_the_largest_body_that_has_not_ended_is_given_up() -> None:
    books = GatewayBooks(max_body_bytes=100, max_bytes=150)
    slow, small, large = (books.exchange() for _ in range(3))
    refused: list[object] = []
    for exchange in (slow, small, large):
        exchange.late = refused.extend
        begun(exchange)
    assert not slow.receive(RequestBody(bytes(90), False), 1.0)
    assert not small.receive(RequestBody(bytes(50), False), 1.0)
    assert refused == []
    assert not small.receive(RequestBody(bytes(20), True), 1.0)
    refusal, end = refused
    assert isinstance(refusal, Reject)
    assert (refusal.status, refusal.headers["x-llm-d-request-dropped-reason"]) == (429, "rejected-saturated")
    assert (end, small.is_ready, books.collected.held_bytes) == (Finish(), True, 70)
    assert list(slow.receive(RequestBody(bytes(90), True), 1.0)) == []
    assert not large.receive(RequestBody(bytes(95), False), 1.0)
    assert len(refused) == 4, "the whole one is not given up for one that has not ended"
    returned = list(small.decide(1.0))
    assert len(returned_body(returned)) == 70
    for exchange in (slow, small, large):
        exchange.end(2.0)
    assert (books.collected.held_bytes, books.collected.unfinished) == (0, {})


def test_large_bodies_that_wait_for_a_place_leave_room_for_usual_ones() -> None:
    mib = 1 << 20
    books = GatewayBooks(max_body_bytes=2 * mib, max_bytes=8 * mib)
    books.is_full = True
    refused: list[object] = []
    for size in (2 * mib,) * 6 + (1 * mib,) * 6 + (50_000,) * 6:
        exchange = books.exchange()
        exchange.late = refused.extend
        begun(exchange)
        answered(exchange, bytes(size))
    assert [request.body_bytes for request in books.requests] == [2 * mib] * 2 + [mib] * 2 + [50_000] * 6
    assert len(refused) == 2 * 8
    assert books.collected.held_bytes < 7 * mib


@pytest.mark.parametrize("length", ["7", "70"])
def test_a_body_of_another_length_than_announced_is_not_forwarded(length: str) -> None:
    books = GatewayBooks()
    exchange = books.exchange()
    begun(exchange, **{"content-length": length})
    refusal = answered(exchange, BODY)[0]
    assert isinstance(refusal, Reject)
    assert refusal.status == 400
    assert json.loads(refusal.body)["error"]["code"] == 400
    assert books.requests == []


def test_an_answer_ends_the_exchange() -> None:
    books = GatewayBooks()
    books.placement = Placement(Reject(429, b"{}", {}))
    exchange = books.exchange()
    begun(exchange)
    assert answered(exchange, BODY) == [Reject(429, b"{}", {}), Finish()]


def test_without_an_address_the_gateway_gets_none() -> None:
    books = GatewayBooks()
    books.placement = Placement(Continue(Phase.REQUEST_HEADERS))
    exchange = books.exchange()
    begun(exchange)
    refusal = answered(exchange, BODY)[0]
    assert isinstance(refusal, Answer)
    assert refusal.status == 503


def held(books: GatewayBooks) -> tuple[GatewayExchange, list[object]]:
    books.is_full = True
    exchange = books.exchange()
    begun(exchange)
    settled: list[object] = []
    assert answered(exchange, BODY) == []
    assert exchange.is_held
    exchange.then(lambda instruction: settled.extend(exchange.settled(instruction, 3.0)))
    return exchange, settled


def test_a_held_request_says_nothing_until_it_is_placed() -> None:
    books = GatewayBooks()
    exchange, settled = held(books)
    books.held[0].settle(books.placed(Phase.REQUEST_HEADERS))
    assert settled == [Pick(Phase.REQUEST_HEADERS, (ADDRESS,), len(BODY)), SendBody(BODY, True)]
    exchange.end(4.0)
    assert (books.in_flight, books.given_up, books.collected.held_bytes) == (0, 0, 0)


def test_a_held_request_whose_client_leaves_gives_up_once() -> None:
    books = GatewayBooks()
    exchange, settled = held(books)
    exchange.end(2.0)
    exchange.end(3.0)
    assert (books.given_up, settled, books.collected.held_bytes) == (1, [], 0)


def test_an_answer_of_the_gateways_own_ends_the_wait() -> None:
    books = GatewayBooks()
    exchange, settled = held(books)
    answer = exchange.receive(ResponseHeaders({":status": "504"}, False), 2.0)
    assert list(answer) == [Continue(Phase.RESPONSE_HEADERS)]
    assert (books.given_up, settled, exchange.is_held) == (1, [], False)
    exchange.end(3.0)
    assert exchange.entry(3.0, 0.0) is None


@pytest.mark.parametrize("modes", [DUPLEX, MODES[BodyMode.BUFFERED]])
def test_what_a_gateway_answers_before_it_asks_passes(modes: BodyModes) -> None:
    books = GatewayBooks()
    exchange = books.exchange()
    first = ResponseHeaders({":status": "403"}, False, modes=modes)
    assert list(exchange.receive(first, 1.0)) == [Continue(Phase.RESPONSE_HEADERS)]
    assert exchange.pass_response(b"no", True, 1.0) == (modes is DUPLEX), "handed back where bodies stream"
    exchange.end(1.1)
    assert (exchange.entry(1.1, 0.0), books.requests) == (None, [])


def test_modes_that_are_announced_later_do_not_count() -> None:
    exchange = placed(GatewayBooks())
    exchange.receive(ResponseHeaders(SSE, False, modes=MODES[BodyMode.BUFFERED]), 1.2)
    assert exchange.pass_response(b"x", False, 1.3), "handed back"


def placed(books: GatewayBooks, modes: BodyModes | None = DUPLEX) -> GatewayExchange:
    """An exchange that was placed at 1.1 s."""
    exchange = books.exchange()
    begun(exchange, modes)
    answered(exchange, BODY)
    return exchange


def test_the_response_tells_the_choice_and_its_end_the_outcome() -> None:
    exchange = placed(GatewayBooks())
    assert list(exchange.receive(ResponseHeaders(SSE, False, ADDRESS), 1.2)) == [
        MarkResponse(
            {
                "x-extproc-backend": "vllm-1",
                "x-extproc-layer": "least_load",
                "x-extproc-reason": "low_zone",
            }
        )
    ]
    usage = (
        b'data: {"choices":[],"usage":{"prompt_tokens":9,"total_tokens":12,"completion_tokens":3,'
        b'"prompt_tokens_details":{"cached_tokens":8}}}\n\ndata: [DONE]\n\n'
    )
    assert exchange.pass_response(b": still there\n\n", False, 1.4)
    assert exchange.pass_response(b"data: {}\n\n", False, 1.6)
    assert exchange.pass_response(usage, False, 2.1)
    assert exchange.pass_response(b"", True, 2.2)
    exchange.end(2.3)
    entry = exchange.entry(2.3, 1000.0)
    assert entry is not None
    assert (entry.status, entry.attempts, entry.response_flags) == (200, 1, frozenset())
    assert entry.tags == {TTFT_TAG: "500000", DECODE_TAG: "500000", HEADERS_TAG: "100000"}
    assert entry.usage == TokenUsage(9, 3, 8)
    assert entry.started_at_s == pytest.approx(1000.0 - 1.2)
    assert entry.metadata["backend"] == "vllm-1"


def test_an_end_without_the_responses_is_a_client_that_left() -> None:
    exchange = placed(GatewayBooks())
    exchange.receive(ResponseHeaders(SSE, False), 1.2)
    exchange.pass_response(b"data: {}\n\n", False, 1.6)
    exchange.end(1.7)
    entry = exchange.entry(1.7, 0.0)
    assert entry is not None
    assert entry.response_flags == {"DC"}


def test_trailers_are_an_end_too() -> None:
    exchange = placed(GatewayBooks())
    exchange.receive(ResponseHeaders(SSE, False), 1.2)
    assert list(exchange.receive(ResponseTrailers(), 1.7)) == [Continue(Phase.RESPONSE_TRAILERS)]
    entry = exchange.entry(1.7, 0.0)
    assert entry is not None
    assert not entry.response_flags


def test_an_error_within_a_stream_is_noticed() -> None:
    exchange = placed(GatewayBooks())
    exchange.receive(ResponseHeaders(SSE, False), 1.2)
    exchange.pass_response(
        b'data: {"error": {"message": "full", "code": 503}}\n\ndata: [DONE]\n\n', True, 1.3
    )
    entry = exchange.entry(1.4, 0.0)
    assert entry is not None
    assert entry.metadata[STREAM_ERROR_KEY] == "503"


def test_a_server_that_takes_no_more_says_for_how_long() -> None:
    exchange = placed(GatewayBooks())
    exchange.receive(ResponseHeaders({":status": "429", "retry-after": "7"}, True), 1.2)
    entry = exchange.entry(1.2, 0.0)
    assert entry is not None
    assert entry.retry_after_s == 7.0


def test_a_limit_of_the_gateways_own_blames_no_server() -> None:
    exchange = placed(GatewayBooks())
    exchange.receive(ResponseHeaders({":status": "503", "x-envoy-overloaded": "true"}, True), 1.2)
    entry = exchange.entry(1.2, 0.0)
    assert entry is not None
    assert "UO" in entry.response_flags


@pytest.mark.parametrize(
    ("served", "attempts", "moves"), [(ADDRESS, 1, 0), ("10.0.0.2:1", 2, 1), ("x", 1, 1)]
)
def test_a_request_that_another_server_has_served_is_booked_there(
    served: str, attempts: int, moves: int
) -> None:
    books = GatewayBooks()
    exchange = placed(books)
    exchange.receive(ResponseHeaders(SSE, True, served), 1.2)
    entry = exchange.entry(1.2, 0.0)
    assert entry is not None
    assert (entry.attempts, len(books.moved)) == (attempts, moves)


def test_the_body_of_a_response_that_was_not_asked_for_is_no_missing_end() -> None:
    exchange = placed(GatewayBooks(), MODES[BodyMode.BUFFERED])
    exchange.receive(ResponseHeaders(SSE, False), 1.2)
    entry = exchange.entry(5.0, 0.0)
    assert entry is not None
    assert (entry.response_flags, entry.tags) == (frozenset(), {})


def test_where_it_is_wanted_the_exchange_ends_with_the_request() -> None:
    books = GatewayBooks(ends_after_request=True)
    exchange = books.exchange()
    begun(exchange)
    answers = answered(exchange, BODY)
    assert returned_body(answers) == BODY
    assert is_finished(answers)
    assert not exchange.is_response_shown
    assert exchange.entry(2.0, 0.0) is None


@pytest.mark.parametrize(
    ("before", "event"),
    [
        ([], RequestBody(BODY, True)),
        ([], RequestTrailers()),
        ([RequestHeaders(HEADERS, False)], RequestHeaders(HEADERS, False)),
        ([ResponseHeaders(SSE, False)], RequestHeaders(HEADERS, False)),
        ([ResponseHeaders(SSE, False)], RequestBody(BODY, True)),
    ],
)
def test_a_message_that_can_come_in_no_order_is_a_protocol_error(
    before: list[RequestHeaders | ResponseHeaders], event: RequestHeaders
) -> None:
    exchange = GatewayBooks().exchange()
    for each in before:
        exchange.receive(each, 1.0)
    with pytest.raises(ProtocolError):
        exchange.receive(event, 1.0)


events = st.one_of(
    st.builds(
        RequestHeaders,
        st.just(HEADERS),
        st.booleans(),
        st.none() | st.builds(BodyModes, st.sampled_from(BodyMode), st.sampled_from(BodyMode)),
    ),
    st.builds(RequestBody, st.binary(max_size=30), st.booleans()),
    st.builds(RequestTrailers),
    st.builds(ResponseHeaders, st.just(SSE), st.booleans(), st.none() | st.just("10.0.0.2:1")),
    st.builds(ResponseTrailers),
)


@given(st.lists(events, max_size=8), st.booleans(), st.booleans())
def test_in_whatever_order_messages_come_nothing_leaks(
    sequence: list[RequestHeaders], is_full: bool, is_placed_late: bool
) -> None:
    books = GatewayBooks()
    books.is_full = is_full
    exchange = books.exchange()
    exchange.then(lambda _: None)
    for event in sequence:
        try:
            exchange.receive(event, 1.0)
            if exchange.is_ready:
                exchange.decide(1.0)
        except ProtocolError:
            break
    if is_placed_late and exchange.is_held:
        books.held[0].settle(books.placed(Phase.REQUEST_HEADERS))
    assert books.in_flight <= 1
    exchange.end(2.0)
    exchange.end(3.0)
    exchange.entry(3.0, 0.0)
    assert (books.in_flight, books.collected.held_bytes, books.collected.unfinished) == (0, 0, {})


def test_the_choice_is_one_address_or_a_list_of_them() -> None:
    books = GatewayBooks()
    books.placement = Placement(
        RouteTo(Phase.REQUEST_HEADERS, "vllm-1", {}, ADDRESS, ("10.0.0.2:8000", "10.0.0.3:8000"))
    )
    exchange = books.exchange()
    begun(exchange)
    assert picked(answered(exchange, BODY)).addresses == (ADDRESS, "10.0.0.2:8000", "10.0.0.3:8000")


def renamed(body: bytes) -> bytes:
    return body.replace(b'"m"', b'"another-model"')


def test_a_request_is_placed_and_handed_back_with_the_model_that_it_is_to_have() -> None:
    books = GatewayBooks(rewrite=renamed)
    exchange = books.exchange()
    begun(exchange, **{"content-length": str(len(BODY))})
    answers = answered(exchange, BODY[:5], BODY[5:])
    assert returned_body(answers) == renamed(BODY)
    assert picked(answers).body_bytes == len(renamed(BODY))
    assert books.requests[0].model == "another-model"
    assert books.collected.held_bytes == 0


@pytest.mark.parametrize("modes", [None, MODES[BodyMode.BUFFERED]], ids=["not announced", "buffered"])
def test_a_body_that_stays_with_the_gateway_keeps_its_model(modes: BodyModes | None) -> None:
    books = GatewayBooks(rewrite=renamed)
    exchange = books.exchange()
    begun(exchange, modes)
    answered(exchange, BODY)
    assert books.requests[0].model == "m"
