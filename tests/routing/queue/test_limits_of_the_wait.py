"""The limit of the wait in mode `queue`: it holds over both waits, and orders a tenant's own requests."""

from dataclasses import replace

import pytest
from support.build import a_request
from support.held_requests import MAX_ACTIVE, RULES, Client, Clinic

from extproc.exchange.messages import Hold
from extproc.routing.queue.queue_rules import HOLD_MARGIN_S
from extproc.routing.queue.request_queue import MAX_TRIED

GUARD_S = 5.0


@pytest.fixture
def clinic() -> Clinic:
    return Clinic(limit_s=GUARD_S)


def arrive(clinic: Clinic, limit_s: float | None = None, tenant: str = "") -> Client:
    return clinic.arrive(a_request(wait_limit_s=limit_s, tenant=tenant))


def give_work(clinic: Clinic, seconds: float) -> None:
    """Give the backend so much more to compute before the next request."""
    backend = clinic.backend()
    backend.prefilled_at_s = clinic.now_s + seconds


def test_a_fifth_of_the_guards_limit_is_left_for_the_servers_queue(clinic: Clinic) -> None:
    clinic.fill()
    client = arrive(clinic)
    assert client.answers == [Hold(0.8 * GUARD_S + HOLD_MARGIN_S)]
    clinic.wait(0.8 * GUARD_S - 0.01)
    assert client.is_held
    clinic.wait(0.01)
    assert client.refusal == "queue_timeout"


def test_a_request_waits_at_the_router_for_a_part_of_its_own_limit(clinic: Clinic) -> None:
    clinic.fill()
    hasty, usual, patient = arrive(clinic, 1.0), arrive(clinic), arrive(clinic, 60.0)
    assert clinic.queue.due_s(clinic.now_s + 0.79) == pytest.approx(clinic.now_s + 0.8)
    clinic.wait(0.8)
    assert (hasty.refusal, usual.is_held) == ("too_late", True)
    clinic.wait(3.2)
    assert (usual.refusal, patient.is_held) == ("queue_timeout", True)
    clinic.wait(RULES.max_wait_s - 4.0 - 0.01)
    assert patient.is_held
    clinic.wait(0.01)
    assert patient.refusal == "too_late", "max_wait_s bounds the wait at the router for all"


@pytest.mark.parametrize(("ahead_s", "is_let_in"), [(1.9, True), (2.1, False)])
def test_what_was_waited_at_the_router_is_not_waited_at_the_server_again(
    clinic: Clinic, ahead_s: float, is_let_in: bool
) -> None:
    placed = clinic.fill()
    client = arrive(clinic)
    clinic.wait(3.0)
    give_work(clinic, ahead_s)
    clinic.leave(placed[0])
    assert client.is_placed == is_let_in
    assert client.refusal == (None if is_let_in else "queue_timeout")


def test_a_request_that_waits_in_vain_does_not_hold_up_the_next_one(clinic: Clinic) -> None:
    placed = clinic.fill()
    hasty, usual = arrive(clinic, 1.0), arrive(clinic)
    give_work(clinic, 2.0)
    clinic.leave(placed[0])
    assert (hasty.refusal, usual.is_placed) == ("too_late", True)


def test_a_request_that_would_be_late_already_is_not_held(clinic: Clinic) -> None:
    clinic.fill()
    give_work(clinic, 2.0)
    assert arrive(clinic, 1.0).refusal == "too_late"
    assert arrive(clinic, 3.0).is_held


def test_the_earliest_limit_is_served_first(clinic: Clinic) -> None:
    placed = clinic.fill()
    usual, hasty, patient = arrive(clinic), arrive(clinic, 2.0), arrive(clinic, 30.0)
    later = arrive(clinic)
    for expected in (hasty, usual, later, patient):
        clinic.leave(placed.pop())
        assert expected.is_placed
        placed.append(expected)


def test_a_short_limit_overtakes_no_request_that_is_due_before_it(clinic: Clinic) -> None:
    placed = clinic.fill()
    usual = arrive(clinic)  # due 4 s later
    clinic.wait(3.3)
    hasty = arrive(clinic, 1.0)  # due after 3.3 s and 0.8 s
    clinic.leave(placed[0])
    assert (usual.is_placed, hasty.is_held) == (True, True)


def test_a_tenant_with_short_limits_gets_no_more_turns_than_another() -> None:
    clinic = Clinic(limit_s=GUARD_S)
    placed = clinic.fill()
    hasty = [arrive(clinic, 1.0, tenant="hasty") for _ in range(10)]
    usual = [arrive(clinic, tenant="usual") for _ in range(3)]
    for _ in range(6):
        clinic.leave(placed.pop())
        placed.append(next(one for one in (*hasty, *usual) if one.is_placed and one not in placed))
        assert abs(sum(c.is_placed for c in hasty) - sum(c.is_placed for c in usual)) <= 1


def test_short_limits_push_no_request_out_of_a_full_queue() -> None:
    clinic = Clinic(replace(RULES, max_waiting=3), limit_s=GUARD_S)
    clinic.fill()
    usual = [arrive(clinic) for _ in range(3)]
    assert {arrive(clinic, 0.1).refusal for _ in range(50)} == {"queue_full"}
    assert all(client.is_held for client in usual)


def test_so_many_late_requests_are_refused_in_one_go_and_the_rest_a_moment_later() -> None:
    clinic = Clinic(replace(RULES, max_waiting=1000), limit_s=GUARD_S)
    clinic.fill()
    late = [arrive(clinic, 2.0) for _ in range(MAX_TRIED + 10)]
    give_work(clinic, 4.0)
    clinic.wait(0.0)
    assert sum(client.refusal == "too_late" for client in late) == MAX_TRIED
    clinic.wait(0.05)
    assert not any(client.is_held for client in late)
    assert clinic.own() == MAX_ACTIVE
