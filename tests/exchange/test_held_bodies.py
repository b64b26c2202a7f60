import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.errors import ProtocolError
from extproc.exchange.exchange import Exchange
from extproc.exchange.held_bodies import ASSUMED_BYTES, COUNTED_BYTES, WINDOW_REQUESTS, HeldBodies
from extproc.exchange.messages import BodyReceived, Continue, HeadersReceived, Phase, Reject, RouteTo
from extproc.exchange.placement import Placement
from extproc.request.api import Api
from extproc.request.request import Request
from extproc.request.token_ratio import TokenRatios

MIB = 1 << 20
REFUSED = Reject(503, b"", {})


def held(max_bytes: int = 90 * MIB) -> HeldBodies:
    return HeldBodies(max_bytes, lambda api: REFUSED)


def of(size: int) -> dict[str, str]:
    return {"content-length": str(size)}


def test_large_bodies_take_two_thirds_and_leave_the_rest_to_usual_ones_and_small_ones_count_nothing() -> None:
    bodies = held()
    assert [bodies.announce(of(20 * MIB)) for _ in range(4)] == [20 * MIB] * 3 + [None]
    assert [bodies.announce(of(MIB)) for _ in range(31)] == [MIB] * 30 + [None]
    assert bodies.announce(of(COUNTED_BYTES - 1)) == 0
    assert bodies.held_bytes == 90 * MIB


def test_an_unknown_length_counts_as_the_largest_until_the_body_is_here() -> None:
    bodies = held()
    assert bodies.announce({}) == 0, "no length is forwarded: nothing is known of any"
    for _ in range(WINDOW_REQUESTS):
        bodies.announce(of(5))
    assert bodies.announce({}) == ASSUMED_BYTES
    assert bodies.arrived(ASSUMED_BYTES, 2 * MIB) == bodies.held_bytes == 2 * MIB
    for _ in range(WINDOW_REQUESTS):
        bodies.arrived(bodies.announce({}) or 0, 0)
    assert bodies.announce({}) == 0, "of a gateway that leaves lengths out nothing is known, either"


@given(st.text(max_size=20))
def test_no_length_of_a_client_raises_or_takes_more_than_there_is(length: str) -> None:
    bodies = held()
    taken = bodies.announce({"content-length": length})
    assert bodies.held_bytes == (taken or 0) <= 90 * MIB


def refused(api: Api) -> Reject:
    return Reject(503, api.kind.encode(), {})


def exchange(bodies: HeldBodies) -> Exchange:
    def place(request: Request, phase: Phase, now_s: float) -> Placement:
        return Placement(RouteTo(phase, "vllm-1"))

    return Exchange(place, TokenRatios(), bodies=bodies)


def headers(size: int) -> HeadersReceived:
    return HeadersReceived({":method": "POST", ":path": "/v1/messages", **of(size)}, end_of_stream=False)


def test_an_exchange_holds_its_body_from_the_headers_to_its_end_and_gives_it_back_once() -> None:
    bodies = held()
    one = exchange(bodies)
    assert one.receive(headers(3 * MIB), 0.0) == Continue(Phase.REQUEST_HEADERS)
    assert bodies.held_bytes == 3 * MIB
    one.receive(BodyReceived(b"x" * MIB), 0.0)
    assert bodies.held_bytes == MIB
    for _ in range(2):
        one.end(1.0)
        assert bodies.held_bytes == 0


def test_a_body_without_room_is_refused_before_it_comes_and_holds_nothing() -> None:
    bodies = HeldBodies(90 * MIB, refused)
    one = exchange(bodies)
    assert one.receive(headers(70 * MIB), 0.0) == Reject(503, b"messages", {})
    with pytest.raises(ProtocolError):
        one.receive(BodyReceived(b"x"), 0.0)
    one.end(1.0)
    assert bodies.held_bytes == 0
