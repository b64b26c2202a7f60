import pytest
from extproc.request.token_learning import TokenLearning
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.fleet.breaker import BreakerRule
from extproc.fleet.fleet import Fleet, FleetRules
from extproc.fleet.saturation import SaturationRule
from extproc.request.api import CHAT
from extproc.request.body_facts import InputSize
from extproc.request.request import Request
from extproc.request.token_ratio import TokenRatios
from extproc.routing.bookings import MAX_SAVED_RETRIES, Booking, Bookings

REQUEST = Request(CHAT, "/v1/chat/completions", "m", True, InputSize(400), 100, 50, 0, 500, has_body=True)
N_BACKENDS = 3


@pytest.fixture
def fleet() -> Fleet:
    return new_fleet()


def new_fleet() -> Fleet:
    fleet = Fleet(FleetRules(SaturationRule(100, 80), BreakerRule(3, 1.0, 8.0, 5.0), 2.0, 1.0, 16.0))
    for slot in range(N_BACKENDS):
        fleet.join(slot, None)
    return fleet


def own(fleet: Fleet) -> list[int]:
    return [state.own for state in fleet.states[:N_BACKENDS]]


def test_a_request_counts_where_envoy_sent_it_until_it_ends(fleet: Fleet) -> None:
    bookings = Bookings(fleet, TokenLearning(TokenRatios()))
    booking = bookings.open(0, REQUEST, 1.0)
    bookings.move(0, 1, 1.1)
    assert own(fleet) == [0, 1, 0]
    bookings.close(booking, 2.0)
    assert own(fleet) == [0, 0, 0]


def test_a_second_attempt_that_is_told_of_too_late_moves_nothing(fleet: Fleet) -> None:
    bookings = Bookings(fleet, TokenLearning(TokenRatios()))
    bookings.close(bookings.open(0, REQUEST, 1.0), 1.1)
    bookings.move(0, 1, 1.2)
    assert own(fleet) == [0, 0, 0]


SLOTS = st.integers(0, N_BACKENDS - 1)


@settings(deadline=None, max_examples=25)  # a fleet has room for thousands, and takes a moment to make
@given(st.lists(st.one_of(st.tuples(st.just("open"), SLOTS), st.tuples(SLOTS, SLOTS), st.just("close"))))
def test_no_slot_is_lost_or_made_by_any_order_of_events(events: list[tuple[str | int, int] | str]) -> None:
    fleet = new_fleet()
    bookings = Bookings(fleet, TokenLearning(TokenRatios()))
    held: list[Booking] = []
    for now_s, event in enumerate(events):
        match event:
            case ("open", int(slot)):
                held.append(bookings.open(slot, REQUEST, now_s))
            case (int(slot), int(other)):
                bookings.move(slot, other, now_s)
            case _:
                if held:
                    bookings.close(held.pop(0), now_s)
        assert sum(own(fleet)) == len(held)
        assert min(own(fleet)) >= 0
    for booking in held:
        bookings.close(booking, len(events))
    assert own(fleet) == [0, 0, 0]


def test_a_spent_budget_is_earned_again_by_requests(fleet: Fleet) -> None:
    bookings = Bookings(fleet, TokenLearning(TokenRatios()))
    for _ in range(int(MAX_SAVED_RETRIES)):
        assert bookings.may_be_retried(0)
        bookings.retried()
    assert not bookings.may_be_retried(0)
    for _ in range(5):
        bookings.close(bookings.open(0, REQUEST, 1.0), 1.0)
    assert bookings.may_be_retried(0)
    assert (bookings.retries, bookings.retries_withheld) == (100, 1)


def test_a_probe_may_always_be_tried_elsewhere(fleet: Fleet) -> None:
    bookings = Bookings(fleet, TokenLearning(TokenRatios()))
    for _ in range(int(MAX_SAVED_RETRIES)):
        bookings.retried()
    for _ in range(3):
        fleet.breakers.fail(1, 1.0)
    assert bookings.may_be_retried(1)
    assert not bookings.may_be_retried(0)
