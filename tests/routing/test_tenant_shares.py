from collections import Counter

import pytest
from support.build import a_core, a_request, core_rules, endpoints, fleet_rules

from extproc.exchange.messages import Phase, Reject, RouteTo
from extproc.exchange.placement import Lease
from extproc.routing.core import Core

PLACES = 20


@pytest.fixture
def core() -> Core:
    """Two backends with ten places each."""
    return a_core(endpoints(2), core_rules(fleet_rules(max_active=PLACES // 2)))


def ask(core: Core, tenant: str, count: int = 1) -> tuple[list[Lease], Counter[str]]:
    """Have requests placed; the leases of those that were, and the reasons of refusals."""
    leases, reasons = list[Lease](), Counter[str]()
    for _ in range(count):
        placement = core.place(a_request(tenant=tenant, input_tokens=1), Phase.REQUEST_BODY, 1.0)
        if isinstance(placement.instruction, RouteTo):
            assert placement.lease is not None
            leases.append(placement.lease)
        elif isinstance(placement.instruction, Reject):
            reasons[placement.instruction.headers["x-extproc-reason"]] += 1
    return leases, reasons


def test_a_tenant_alone_may_have_all_places(core: Core) -> None:
    leases, reasons = ask(core, "a", PLACES + 5)
    assert (len(leases), reasons) == (PLACES, {"saturated": 5})


def test_the_last_places_are_for_tenants_with_few_requests(core: Core) -> None:
    ask(core, "quiet")
    greedy, reasons = ask(core, "greedy", 300)
    assert set(reasons) == {"tenant_share"}
    assert len(greedy) < PLACES - 3
    quiet, refused = ask(core, "quiet", 3)
    assert (len(quiet), refused) == (3, {})


def test_a_tenant_that_has_a_little_more_than_others_is_not_refused(core: Core) -> None:
    for number in range(8):
        ask(core, f"user-{number}", 2)
    few, refused = ask(core, "user-0", 2)
    assert (len(few), refused) == (2, {})


def test_with_room_left_the_share_of_a_tenant_does_not_count(core: Core) -> None:
    ask(core, "quiet")
    greedy, _ = ask(core, "greedy", PLACES // 2)
    assert len(greedy) == PLACES // 2


def test_without_tenants_places_go_to_the_first_requests(core: Core) -> None:
    leases, reasons = ask(core, "", PLACES + 1)
    assert (len(leases), reasons) == (PLACES, {"saturated": 1})


def test_nothing_is_kept_of_tenants_whose_requests_have_ended(core: Core) -> None:
    for number in range(100):
        (lease,), _ = ask(core, f"tenant-{number}")
        lease.end(2.0)
    assert len(core.router.bookings.shares) == 0
