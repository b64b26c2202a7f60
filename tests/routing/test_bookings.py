import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.build import a_fleet, a_request, fleet_rules

from extproc.fleet.backend import Backend
from extproc.fleet.fleet import Fleet
from extproc.routing.bookings import MAX_SAVED_RETRIES, Booking, Bookings

REQUEST = a_request()
N_BACKENDS = 3


@pytest.fixture
def fleet() -> Fleet:
    return new_fleet()


def new_fleet() -> Fleet:
    return a_fleet(N_BACKENDS, fleet_rules(max_active=100))


def new_bookings(fleet: Fleet) -> Bookings:
    return Bookings(fleet.prefixes, lambda backend, now_s: None)


def own(fleet: Fleet) -> list[int]:
    return [backend.own for backend in fleet.backends]


def test_a_request_counts_where_envoy_sent_it_until_it_ends(fleet: Fleet) -> None:
    bookings, (one, two, _) = new_bookings(fleet), fleet.backends
    booking = bookings.open(one, REQUEST, 1.0)
    bookings.move(one, two, 1.1)
    assert own(fleet) == [0, 1, 0]
    bookings.close(booking, 2.0)
    assert own(fleet) == [0, 0, 0]


def test_news_of_a_second_attempt_after_the_request_has_ended_moves_nothing(fleet: Fleet) -> None:
    bookings, (one, two, _) = new_bookings(fleet), fleet.backends
    bookings.close(bookings.open(one, REQUEST, 1.0), 1.1)
    bookings.move(one, two, 1.2)
    assert own(fleet) == [0, 0, 0]


def test_a_booking_ends_once_and_says_which_backend_it_freed(fleet: Fleet) -> None:
    freed: list[tuple[Backend, float]] = []
    one, two, _ = fleet.backends
    bookings = Bookings(fleet.prefixes, lambda backend, now_s: freed.append((backend, now_s)))
    booking = bookings.open(one, REQUEST, 1.0)
    bookings.move(one, two, 1.1)
    booking.end(2.0)
    booking.end(3.0)
    assert freed == [(two, 2.0)]
    assert own(fleet) == [0, 0, 0]


NUMBERS = st.integers(0, N_BACKENDS - 1)


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.tuples(st.just("open"), NUMBERS), st.tuples(NUMBERS, NUMBERS), st.just("close")))
)
def test_no_request_is_lost_or_made_by_any_order_of_events(events: list[tuple[str | int, int] | str]) -> None:
    fleet = new_fleet()
    bookings, backends = new_bookings(fleet), fleet.backends
    held: list[Booking] = []
    for now_s, event in enumerate(events):
        match event:
            case ("open", int(number)):
                held.append(bookings.open(backends[number], REQUEST, now_s))
            case (int(number), int(other)):
                bookings.move(backends[number], backends[other], now_s)
            case _:
                if held:
                    bookings.close(held.pop(0), now_s)
        assert sum(own(fleet)) == len(held)
        assert min(own(fleet)) >= 0
    for booking in held:
        bookings.close(booking, len(events))
    assert own(fleet) == [0, 0, 0]


def test_a_spent_budget_is_earned_again_by_requests(fleet: Fleet) -> None:
    bookings, backend = new_bookings(fleet), fleet.backends[0]
    for _ in range(int(MAX_SAVED_RETRIES)):
        assert bookings.may_be_retried(backend)
        bookings.retried()
    assert not bookings.may_be_retried(backend)
    for _ in range(5):
        bookings.close(bookings.open(backend, REQUEST, 1.0), 1.0)
    assert bookings.may_be_retried(backend)
    assert (bookings.retries, bookings.retries_withheld) == (100, 1)


def test_a_probe_may_always_be_tried_elsewhere(fleet: Fleet) -> None:
    bookings, (healthy, failing, _) = new_bookings(fleet), fleet.backends
    for _ in range(int(MAX_SAVED_RETRIES)):
        bookings.retried()
    for _ in range(3):
        failing.breaker.fail(1.0)
    assert bookings.may_be_retried(failing)
    assert not bookings.may_be_retried(healthy)
