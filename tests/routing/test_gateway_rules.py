"""The core behind a gateway: which endpoints it may name, and how it refuses."""

import json
from typing import Any

import pytest
from support.build import MAX_ACTIVE, a_core, a_request, an_endpoint, core_rules, endpoints, scrape

from extproc.exchange.messages import Phase, Reject, RouteTo
from extproc.exchange.placement import Placement
from extproc.routing.core import Core, CoreRules
from extproc.routing.gateway_rules import GatewayRules
from extproc.routing.queue.request_queue import QueueRules

NOW_S = 100.0


def gateway_rules(max_endpoints: int = 1, queue: QueueRules | None = None) -> CoreRules:
    rules = core_rules(queue=queue)
    return CoreRules(
        rules.fleet, rules.policy, rules.admission, rules.queue, gateway=GatewayRules(max_endpoints)
    )


def gateway_core(count: int = 3, **rules: Any) -> Core:
    return a_core(endpoints(count), gateway_rules(**rules), now_s=NOW_S)


def place(core: Core, **changes: Any) -> Placement:
    return core.place(a_request(**changes), Phase.REQUEST_HEADERS, NOW_S)


def address(placement: Placement) -> str:
    assert isinstance(placement.instruction, RouteTo)
    return placement.instruction.address


def refusal(placement: Placement) -> tuple[int, str | None]:
    assert isinstance(placement.instruction, Reject)
    headers = placement.instruction.headers
    assert json.loads(placement.instruction.body)["error"]["code"] == placement.instruction.status
    return placement.instruction.status, headers.get("x-llm-d-request-dropped-reason")


@pytest.mark.parametrize(
    ("allowed", "chosen"),
    [
        ({"127.0.0.1:2"}, {"127.0.0.1:2"}),
        ({"127.0.0.1:2", "10.0.0.1:8000"}, {"127.0.0.1:2"}),
        ({"127.0.0.1"}, {"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}),
    ],
)
def test_only_endpoints_that_the_gateway_allows_are_chosen(allowed: set[str], chosen: set[str]) -> None:
    core = gateway_core()
    named = {address(place(core, endpoints=frozenset(allowed))) for _ in range(MAX_ACTIVE)}
    assert named <= chosen


@pytest.mark.parametrize("allowed", ["[fd00::2]:2", "fd00::2"])
def test_an_ipv6_address_is_named_in_brackets(allowed: str) -> None:
    members = [an_endpoint(number, host=f"fd00::{number}") for number in (1, 2)]
    core = a_core(members, gateway_rules(), now_s=NOW_S)
    assert address(place(core, endpoints=frozenset({allowed}))) == "[fd00::2]:2"


@pytest.mark.parametrize("allowed", [frozenset(), frozenset({"10.0.0.1:8000"})])
def test_a_gateway_that_allows_none_of_our_servers_gets_none(allowed: frozenset[str]) -> None:
    assert refusal(place(gateway_core(), endpoints=allowed)) == (503, "rejected-no-endpoints")


def test_without_backends_there_is_none() -> None:
    assert refusal(place(gateway_core(0))) == (503, "rejected-no-endpoints")


def test_full_backends_are_contended() -> None:
    core = gateway_core(1)
    placements = [place(core) for _ in range(MAX_ACTIVE + 2)]
    assert refusal(placements[-1]) == (429, "rejected-saturated")
    assert isinstance(placements[-1].instruction, Reject)
    assert int(placements[-1].instruction.headers["retry-after"]) >= 1


def test_failing_backends_are_none() -> None:
    core = gateway_core(1)
    backend = core.registry.members[0]
    for _ in range(5):
        backend.scrape_refused(NOW_S)
    assert refusal(place(core)) == (503, "rejected-no-endpoints")


def held(core: Core) -> list[Placement]:
    """Fill the servers, have one request wait, and return how it will be answered."""
    waiting = place(core)
    while isinstance(waiting.instruction, RouteTo):
        waiting = place(core)
    answers: list[Placement] = []
    lease: Any = waiting.lease
    lease.respond = answers.append
    return answers


def test_a_queue_that_is_full_is_contended_and_one_that_took_too_long_says_so() -> None:
    core = gateway_core(1, queue=QueueRules(max_waiting=1, max_wait_s=2.0))
    answers = held(core)
    assert refusal(place(core)) == (429, "rejected-saturated")
    assert core.queue is not None
    core.queue.advance(NOW_S + 5.0)
    assert refusal(answers[0]) == (429, "rejected-ttl-expired")


def test_a_queue_that_closes_refuses_those_who_wait() -> None:
    core = gateway_core(1, queue=QueueRules())
    answers = held(core)
    assert core.queue is not None
    core.queue.close(NOW_S)
    assert refusal(answers[0])[0] == 503


def test_a_model_that_is_not_served_is_404() -> None:
    assert refusal(place(gateway_core(), model="other")) == (404, None)


def test_own_mode_refuses_as_before() -> None:
    core = a_core(endpoints(1), core_rules(), now_s=NOW_S)
    placements = [place(core) for _ in range(MAX_ACTIVE + 2)]
    assert refusal(placements[-1]) == (503, None)


def test_a_list_has_the_best_ones_after_the_chosen_one() -> None:
    core = gateway_core(4, max_endpoints=3)
    for member, running in zip(core.registry.members, (3.0, 0.0, 1.0, 2.0), strict=True):
        scrape(member, running=running, now_s=NOW_S)
    route = place(core).instruction
    assert isinstance(route, RouteTo)
    assert (route.address, route.others) == ("127.0.0.1:2", ("127.0.0.1:3", "127.0.0.1:4"))


@pytest.mark.parametrize("backends", [4, 200])
def test_both_modes_make_the_same_choices(backends: int) -> None:
    """Of many backends some are looked at, which are drawn: also for a list there is one look."""

    def chosen(rules: CoreRules) -> list[str]:
        core = a_core(endpoints(backends), rules, now_s=NOW_S, seed=7)
        return [address(place(core)) for _ in range(12)]

    assert chosen(gateway_rules(max_endpoints=2)) == chosen(core_rules())


def test_a_request_counts_on_the_server_that_has_served_it() -> None:
    core = gateway_core(2)
    placement = place(core)
    chosen = core.registry.backend_at(address(placement))
    (other,) = [member for member in core.registry.members if member is not chosen]
    assert placement.lease is not None
    assert chosen is not None
    assert not core.served_elsewhere(placement.lease, chosen.endpoint.address, NOW_S)
    assert not core.served_elsewhere(placement.lease, "10.9.9.9:1", NOW_S)
    assert core.served_elsewhere(placement.lease, other.endpoint.address, NOW_S)
    assert (chosen.own, other.own, chosen.breaker.is_tripped) == (0, 1, False)
    placement.lease.end(NOW_S + 1.0)
    assert (chosen.own, other.own) == (0, 0)
    assert not core.served_elsewhere(placement.lease, chosen.endpoint.address, NOW_S)
    assert (chosen.own, other.own) == (0, 0)
