"""Requests for a model that is scaled to zero: they wait for its first server, and then for a place there."""

from dataclasses import replace

import pytest
from support.build import a_request, an_endpoint
from support.held_requests import MAX_ACTIVE, RULES, Client, Clinic

from extproc.exchange.messages import Hold
from extproc.request.request import Request
from extproc.routing.queue.queue_rules import HOLD_MARGIN_S, MAX_HELD_S, QueueRules

START_S = 300.0
KNOWN = replace(RULES, max_start_wait_s=START_S, models=("asleep",))


def asleep(**changes: object) -> Request:
    return a_request("asleep", **changes)


@pytest.fixture
def clinic() -> Clinic:
    """Another model is served; `asleep` has no server."""
    return Clinic(KNOWN)


def start(clinic: Clinic) -> None:
    """Let the model's first server come."""
    members = [an_endpoint(1), an_endpoint(2, model="asleep")]
    clinic.core.set_members(members, clinic.now_s, members)
    clinic.wait(0.05)


def stop(clinic: Clinic) -> None:
    clinic.core.set_members([an_endpoint(1)], clinic.now_s)
    clinic.core.advance(clinic.now_s)


def test_requests_for_a_known_model_wait_until_it_has_a_server(clinic: Clinic) -> None:
    client = clinic.arrive(asleep())
    assert client.answers == [Hold(START_S + RULES.max_wait_s + HOLD_MARGIN_S)]
    clinic.wait(START_S - 1)
    assert client.is_held
    start(clinic)
    assert client.is_placed


def test_a_server_that_has_not_said_yet_what_it_serves_is_waited_for(clinic: Clinic) -> None:
    client = clinic.arrive(asleep())
    members = [an_endpoint(1), an_endpoint(2, model=None)]
    clinic.core.set_members(members, clinic.now_s, members)
    clinic.wait(0.05)
    assert client.is_held
    clinic.core.learn_models(clinic.backend("vllm-2"), frozenset({"asleep"}), {})
    clinic.wait(0.05)
    assert client.is_placed


def test_a_server_that_takes_names_which_it_does_not_list_is_not_waited_for() -> None:
    resolving = an_endpoint(1, resolves_adapters=True)
    assert Clinic(KNOWN, backends=[resolving]).arrive(asleep()).is_placed


def test_a_model_that_was_served_is_known_however_long_ago() -> None:
    clinic = Clinic(replace(KNOWN, models=None))
    assert clinic.arrive(asleep()).refusal == "unknown_model"
    start(clinic)
    stop(clinic)
    clinic.wait(86_400.0)
    client = clinic.arrive(asleep())
    assert client.is_held
    start(clinic)
    assert client.is_placed


def test_their_deadline_is_their_own(clinic: Clinic) -> None:
    client = clinic.arrive(asleep())
    clinic.wait(START_S - 0.1)
    assert client.is_held
    clinic.wait(0.2)
    assert client.refusal == "model_gone"
    assert clinic.queue.waiting == 0


def test_once_there_is_a_server_they_wait_for_a_place_as_others_do(clinic: Clinic) -> None:
    clients = [clinic.arrive(asleep()) for _ in range(MAX_ACTIVE + 2)]
    clinic.wait(200.0)
    start(clinic)
    assert [client.is_placed for client in clients] == [True] * MAX_ACTIVE + [False] * 2
    clinic.wait(RULES.max_wait_s - 0.2)
    clinic.leave(clients[0])
    assert clients[MAX_ACTIVE].is_placed, "its wait for the start does not count"
    clinic.wait(0.2)
    assert clients[-1].refusal == "queue_timeout"


def test_newcomers_do_not_overtake_those_that_waited_for_the_start(clinic: Clinic) -> None:
    early = [clinic.arrive(asleep()) for _ in range(MAX_ACTIVE)]
    members = [an_endpoint(1), an_endpoint(2, model="asleep")]
    clinic.core.set_members(members, clinic.now_s, members)
    late = clinic.arrive(asleep())
    assert late.is_held
    clinic.wait(0.05)
    assert all(client.is_placed for client in early)
    assert late.is_held


def test_both_waits_together_end_before_envoys_patience_does() -> None:
    clinic = Clinic(replace(KNOWN, max_start_wait_s=MAX_HELD_S))
    clients = [clinic.arrive(asleep()) for _ in range(MAX_ACTIVE + 1)]
    assert clients[0].answers == [Hold(MAX_HELD_S + HOLD_MARGIN_S)]
    clinic.wait(MAX_HELD_S - 1.0)
    start(clinic)
    clinic.wait(1.1)
    assert clients[-1].refusal == "queue_timeout"


def test_a_clients_own_limit_holds_over_both_waits(clinic: Clinic) -> None:
    client = clinic.arrive(asleep(wait_limit_s=5.0))
    assert client.answers == [Hold(4.0 + HOLD_MARGIN_S)]
    clinic.wait(4.1)
    assert client.refusal == "model_gone"


def test_clients_that_leave_and_more_than_may_wait_make_no_difference_to_others() -> None:
    clinic = Clinic(replace(KNOWN, max_waiting=2))
    gone, stays, more = (clinic.arrive(asleep()) for _ in range(3))
    assert more.refusal == "queue_full"
    clinic.leave(gone)
    assert clinic.queue.depths() == {"asleep": 1}
    start(clinic)
    assert stays.is_placed


def test_an_unknown_model_and_requests_without_work_do_not_wait(clinic: Clinic) -> None:
    assert clinic.arrive(a_request("nobodys")).refusal == "unknown_model"
    assert not clinic.arrive(asleep(has_body=False)).is_held


def test_an_empty_fleet_is_no_reason_not_to_wait() -> None:
    clinic = Clinic(KNOWN, backends=())
    client: Client = clinic.arrive(asleep())
    assert client.is_held
    assert clinic.arrive(a_request("nobodys")).is_passed_through
    start(clinic)
    assert client.is_placed


def test_at_the_end_they_go_to_envoys_pool(clinic: Clinic) -> None:
    client = clinic.arrive(asleep())
    clinic.queue.close(clinic.now_s)
    assert client.is_passed_through
    assert clinic.arrive(asleep()).is_passed_through


def test_the_autoscaler_sees_the_requests_that_wait(clinic: Clinic) -> None:
    assert clinic.core.servers_wanted(clinic.now_s) == {"m": 0}
    clinic.arrive(asleep())
    assert clinic.core.servers_wanted(clinic.now_s) == {"asleep": 1, "m": 0}
    start(clinic)
    assert clinic.core.servers_wanted(clinic.now_s)["asleep"] == 1
    for _ in range(2 * MAX_ACTIVE):
        clinic.arrive(asleep())
    assert clinic.core.servers_wanted(clinic.now_s)["asleep"] == 4


def test_rules_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="min_priority"):
        QueueRules(min_priority=1)
