"""Requests for adapters go where their adapter runs, then where a place for one is free, then by load."""

from collections import Counter
from math import inf

import pytest
from support.build import a_core, a_request, an_endpoint, core_rules, fleet_rules, reserve, scrape

from extproc.exchange.messages import Phase, Reject, RouteTo
from extproc.exchange.placement import Placement
from extproc.fleet.adapter_places import AdaptersSeen, AdapterWait
from extproc.fleet.backend import Backend
from extproc.fleet.peers import retry_peers
from extproc.routing.bookings import Booking
from extproc.routing.core import Core

NAMES = [f"a{number}" for number in range(8)]
BASES = dict.fromkeys(NAMES, "base")


def a_fleet(count: int = 3, **changes: object) -> Core:
    """Servers of one base model and all adapters, each with places for two at once."""
    endpoints = [an_endpoint(number, model=None, **changes) for number in range(1, count + 1)]
    core = a_core(endpoints, core_rules(fleet_rules(max_active=100, resume_load=80)))
    for backend in core.fleet.backends:
        core.learn_models(backend, frozenset({"base", *NAMES}), {}, BASES)
        see(backend)
    return core


def see(backend: Backend, *named: str, places: float = 2, running: float = 1.0, now_s: float = 1.0) -> None:
    seen = AdaptersSeen(frozenset(named), places=places)
    scrape(backend, running=running if named else 0.0, now_s=now_s, adapters=seen)


def send(core: Core, model: str, now_s: float = 1.1) -> str:
    """The backend that a request is placed on, where it stays."""
    placement = core.place(a_request(model), Phase.REQUEST_BODY, now_s)
    return backend_of(placement)


def backend_of(placement: Placement) -> str:
    assert isinstance(placement.instruction, RouteTo), placement.instruction
    return placement.instruction.cluster.removesuffix("_endpoint")


def test_a_request_goes_where_its_adapter_runs_by_the_servers_gauge() -> None:
    core = a_fleet()
    see(core.fleet.backends[1], "a0")
    assert {send(core, "a0", 1.1 + tenth / 10) for tenth in range(3)} == {"vllm-2"}


def test_our_own_requests_count_at_once_without_a_scrape() -> None:
    core = a_fleet()
    first = send(core, "a0")
    assert {send(core, "a0", 1.2 + tenth / 10) for tenth in range(3)} == {first}


def test_an_adapter_that_runs_nowhere_goes_where_a_place_is_free() -> None:
    core = a_fleet()
    for backend in core.fleet.backends[:2]:
        see(backend, "a1", "a2")
    core.fleet.backends[2].reserve(1.0)  # it has more to do, but a place for an adapter
    assert send(core, "a0") == "vllm-3"


def test_many_adapters_spread_over_the_places_that_there_are() -> None:
    core = a_fleet(count=3)
    homes = {name: {send(core, name) for _ in range(2)} for name in NAMES[:6]}
    assert all(len(home) == 1 for home in homes.values())
    assert Counter(next(iter(home)) for home in homes.values()) == {"vllm-1": 2, "vllm-2": 2, "vllm-3": 2}


def test_of_a_large_fleet_the_servers_where_the_adapter_runs_are_looked_at() -> None:
    core = a_fleet(count=300)
    see(core.fleet.backends[277], "a0")
    assert {send(core, "a0", 1.1 + tenth / 10) for tenth in range(4)} == {"vllm-278"}


def test_a_crowded_server_is_left_for_an_idle_one() -> None:
    core = a_fleet()
    assert len({send(core, "a0") for _ in range(90)}) == 3


def test_an_idle_servers_last_names_take_no_place() -> None:
    core = a_fleet()
    for backend in core.fleet.backends[:2]:
        scrape(backend, running=1.0, now_s=1.0, adapters=AdaptersSeen(frozenset({"a1", "a2"}), places=2))
    idle = core.fleet.backends[2]
    scrape(idle, running=0.0, now_s=1.0, adapters=AdaptersSeen(frozenset({"a3", "a4"}), places=2))
    assert send(core, "a0") == "vllm-3"


def test_a_gauge_that_is_stale_tells_nothing() -> None:
    core = a_fleet()
    see(core.fleet.backends[1], "a0")
    places = core.fleet.backends[1].adapters
    assert places is not None
    assert places.wait("a0", is_fresh=True) is AdapterWait.NOTHING
    assert places.wait("a0", is_fresh=False) is AdapterWait.LOADING


def test_requests_for_the_base_model_need_no_place_and_do_not_follow_adapters() -> None:
    core = a_fleet()
    for backend in core.fleet.backends:
        see(backend, "a1", "a2")
    assert {send(core, "base") for _ in range(9)} == {"vllm-1", "vllm-2", "vllm-3"}


def test_places_are_given_back_however_a_request_ends() -> None:
    core = a_fleet(count=1)
    (backend,) = core.fleet.backends
    leases = [core.place(a_request(name), Phase.REQUEST_BODY, 1.1).lease for name in ("a0", "a0", "a1")]
    places = backend.adapters
    assert places is not None
    assert (places._own, len(places._counted)) == ({"a0": 2, "a1": 1}, 3)
    for lease in leases:
        assert lease is not None
        lease.end(1.2)
        lease.end(1.2)
    assert (places._own, places._counted) == ({}, {})


def test_a_second_attempt_takes_the_place_along() -> None:
    core = a_fleet(count=2)
    core.place(a_request("a0"), Phase.REQUEST_BODY, 1.1)
    one, two = sorted(core.fleet.backends, key=lambda backend: -backend.own)
    core.router.bookings.move(one, two, 1.2)
    assert one.adapters is not None
    assert two.adapters is not None
    assert (one.adapters._own, two.adapters._own) == ({}, {"a0": 1})


def test_what_is_known_of_adapters_is_bounded() -> None:
    core = a_fleet(count=1)
    (backend,) = core.fleet.backends
    for number in range(3000):
        see(backend, f"odd-{number}", now_s=1.0 + number)
    places = backend.adapters
    assert places is not None
    assert len(places._known) <= 1024
    assert len(places._kept) <= 1024


def test_a_fleet_that_never_reported_adapters_is_not_searched_for_them() -> None:
    core = a_core([an_endpoint(1), an_endpoint(2)])
    scrape(core.fleet.backends[0], now_s=1.0)
    core.place(a_request(), Phase.REQUEST_BODY, 1.0)
    assert not core.fleet.has_adapters
    assert core.fleet.backends[0].adapters is None


# Servers that load adapters by themselves


def a_mixed_fleet() -> Core:
    """Two servers of one base that load adapters by themselves, and one of another model that does not."""
    return a_core(
        [
            an_endpoint(1, model="base", resolves_adapters=True),
            an_endpoint(2, model="base", resolves_adapters=True),
            an_endpoint(3, model="whisper"),
        ]
    )


def test_an_unknown_model_goes_to_servers_that_load_adapters_by_themselves() -> None:
    core = a_mixed_fleet()
    assert {send(core, f"unlisted-{number}") for number in range(6)} == {"vllm-1", "vllm-2"}
    assert {send(core, "whisper") for _ in range(3)} == {"vllm-3"}


def test_an_unlisted_adapter_stays_where_it_was_loaded() -> None:
    core = a_mixed_fleet()
    assert len({send(core, "unlisted") for _ in range(3)}) == 1


def test_an_adapter_that_one_of_them_lists_by_now_can_still_be_loaded_by_the_others() -> None:
    core = a_core(
        [an_endpoint(number, model=None, resolves_adapters=number < 3) for number in (1, 2, 3)],
        core_rules(fleet_rules(max_active=100, resume_load=80)),
    )
    one, two, three = core.fleet.backends
    core.learn_models(one, frozenset({"base", "a0"}), {}, {"a0": "base"})
    core.learn_models(two, frozenset({"base"}), {})
    core.learn_models(three, frozenset({"base"}), {})
    assert core.registry.candidates("a0") == (one, two)
    assert core.registry.candidates("base") == (one, two, three)


def test_a_setting_that_changes_holds_for_the_servers_that_are_there() -> None:
    core = a_core([an_endpoint(1)])
    core.set_members([an_endpoint(1, resolves_adapters=True)], 1.0)
    assert send(core, "unlisted") == "vllm-1"
    core.set_members([an_endpoint(1)], 2.0)
    assert isinstance(core.place(a_request("unlisted"), Phase.REQUEST_BODY, 2.0).instruction, Reject)


def test_without_such_a_server_an_unknown_model_is_refused() -> None:
    core = a_core([an_endpoint(1), an_endpoint(2)])
    placement = core.place(a_request("unlisted"), Phase.REQUEST_BODY, 1.0)
    assert isinstance(placement.instruction, Reject)
    assert placement.instruction.status == 404


@pytest.mark.parametrize(("do_both", "is_retried"), [(True, True), (False, False)])
def test_an_unlisted_model_has_a_second_attempt_only_where_it_can_be_loaded(
    do_both: bool, is_retried: bool
) -> None:
    core = a_core(
        [an_endpoint(1, resolves_adapters=True), an_endpoint(2, resolves_adapters=do_both)],
    )
    peers = retry_peers(core.registry.members)["vllm-1"]
    one = core.fleet.backends[0]
    one.retried_models = peers.models
    assert one.has_peers_for("unlisted") is is_retried
    assert one.has_peers_for("m")


# What waiting for a place teaches


def test_a_queue_for_places_is_none_that_tells_the_servers_limit() -> None:
    core = a_fleet(count=1)
    (backend,) = core.fleet.backends
    blocked = AdaptersSeen(frozenset({"a0", "a1"}), frozenset({"a2"}), 2)
    for second in range(30):
        reserve(backend, 1, 1.0 + second)
        scrape(
            backend, running=6.0, waiting=3.0, now_s=1.5 + second, adapters=blocked, ended_total=float(second)
        )
    assert backend.waiting == 0.0
    assert (backend.running_limit, backend.limits.waits_above) == (inf, inf)


def test_a_request_that_waited_for_a_place_is_no_measure_of_the_servers_pace() -> None:
    core = a_fleet(count=1)
    (backend,) = core.fleet.backends
    taken = [core.place(a_request(name), Phase.REQUEST_BODY, 1.1).lease for name in ("a0", "a1", "a2")]
    see(backend, "a0", "a1", now_s=1.2)
    for lease in taken:
        assert isinstance(lease, Booking)
        lease.end(2.0)
    assert [lease.is_no_measure for lease in taken if isinstance(lease, Booking)] == [False, False, True]


def test_a_place_that_others_took_meanwhile_is_seen_by_the_gauge() -> None:
    core = a_fleet(count=1)
    (backend,) = core.fleet.backends
    lease = core.place(a_request("a0"), Phase.REQUEST_BODY, 1.1).lease
    blocked = AdaptersSeen(frozenset({"a5", "a6"}), frozenset({"a0"}), 2)
    scrape(backend, running=2.0, waiting=1.0, now_s=1.2, adapters=blocked)
    assert isinstance(lease, Booking)
    lease.end(2.0)
    assert lease.is_no_measure
