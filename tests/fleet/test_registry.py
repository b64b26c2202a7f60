from math import inf

import pytest

from extproc.fleet.backend import Lifecycle
from extproc.fleet.breaker import BreakerRule
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.fleet import CAPACITY, Fleet, FleetRules
from extproc.fleet.registry import Registry
from extproc.fleet.saturation import SaturationRule
from extproc.fleet.signals import Signals

SETTLE_S = 1.5


def backend(number: int, models: frozenset[str] | None = None, host: str = "127.0.0.1") -> Endpoint:
    return Endpoint(f"vllm-{number}", host, 8100 + number, models)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(FleetRules(SaturationRule(10, 8), BreakerRule(3, 1.0, 8.0, 5.0), 2.0, 1.0, 4.0))


@pytest.fixture
def registry(fleet: Fleet) -> Registry:
    return Registry(fleet, SETTLE_S)


def names(registry: Registry, model: str | None = None) -> set[str] | None:
    slots = registry.candidates(model)
    return None if slots is None else {registry.name_of(int(slot)) for slot in slots}


def test_a_new_backend_is_chosen_only_once_envoy_had_time_to_load_its_cluster(registry: Registry) -> None:
    registry.apply([backend(1)], 10.0)
    assert names(registry) == set()
    registry.advance(11.4)
    assert names(registry) == set()
    registry.advance(11.5)
    assert names(registry) == {"vllm-1"}


def test_a_backend_whose_cluster_survived_our_restart_is_chosen_at_once(registry: Registry) -> None:
    registry.apply([backend(1), backend(2)], 10.0, known_to_envoy=[backend(1), backend(2, host="10.0.0.9")])
    assert names(registry) == {"vllm-1"}


def test_a_departing_backend_drains_before_it_loses_its_cluster(registry: Registry, fleet: Fleet) -> None:
    registry.apply([backend(1), backend(2)], 0.0, known_to_envoy=[backend(1), backend(2)])
    slot = registry.slot_of("vllm-1")
    assert slot is not None
    fleet.reserve(slot, 1.0)
    registry.apply([backend(2)], 2.0)
    assert names(registry) == {"vllm-2"}
    assert not registry.advance(60.0)
    assert [cluster.name for cluster in registry.clusters()] == ["vllm-1", "vllm-2"]
    fleet.release(slot, 61.0)
    assert registry.advance(61.0)
    assert [cluster.name for cluster in registry.clusters()] == ["vllm-2"]


def test_a_backend_that_returns_while_it_drains_is_chosen_again(registry: Registry) -> None:
    registry.apply([backend(1)], 0.0, known_to_envoy=[backend(1)])
    registry.apply([backend(2)], 1.0)
    registry.apply([backend(1), backend(2)], 1.2)
    assert names(registry) == {"vllm-1"}


def test_a_backend_with_a_new_address_is_another_backend(registry: Registry, fleet: Fleet) -> None:
    registry.apply([backend(1)], 0.0, known_to_envoy=[backend(1)])
    old = registry.slot_of("vllm-1")
    assert old is not None
    fleet.reserve(old, 0.5)
    registry.apply([backend(1, host="10.0.0.7")], 1.0)
    registry.advance(3.0)
    assert registry.slot_of("vllm-1") not in {None, old}
    assert [cluster.host for cluster in registry.clusters()] == ["10.0.0.7"]
    assert {member.membership for member in registry.members} == {Lifecycle.DRAINING, Lifecycle.ACTIVE}


def test_an_unchanged_backend_keeps_its_slot_when_others_change(registry: Registry) -> None:
    registry.apply([backend(1), backend(2)], 0.0)
    registry.advance(2.0)
    slot = registry.slot_of("vllm-2")
    registry.apply([backend(3), backend(2)], 3.0)
    assert registry.slot_of("vllm-2") == slot


def test_candidates_are_those_that_serve_the_model(registry: Registry) -> None:
    everyone = [backend(1, frozenset({"a"})), backend(2, frozenset({"a", "b"}))]
    registry.apply(everyone, 0.0, known_to_envoy=everyone)
    assert names(registry, "a") == {"vllm-1", "vllm-2"}
    assert names(registry, "b") == {"vllm-2"}
    assert names(registry, None) == {"vllm-1", "vllm-2"}


def test_a_model_that_nobody_serves_is_known_to_be_missing(registry: Registry) -> None:
    registry.apply([backend(1, frozenset({"a"}))], 0.0, known_to_envoy=[backend(1)])
    assert names(registry, "z") is None


def test_a_backend_that_has_not_said_what_it_serves_may_serve_anything(registry: Registry) -> None:
    everyone = [backend(1, frozenset({"a"})), backend(2)]
    registry.apply(everyone, 0.0, known_to_envoy=everyone)
    assert names(registry, "z") == {"vllm-2"}
    assert names(registry, "a") == {"vllm-1"}


def test_before_anybody_is_active_no_model_is_known_to_be_missing(registry: Registry) -> None:
    registry.apply([backend(1, frozenset({"a"}))], 0.0)
    assert names(registry, "z") == set()


def test_what_a_server_says_it_serves_is_learned(registry: Registry) -> None:
    registry.apply([backend(1)], 0.0, known_to_envoy=[backend(1)])
    slot = registry.slot_of("vllm-1")
    assert slot is not None
    registry.learn_models(slot, frozenset({"a"}))
    assert names(registry, "a") == {"vllm-1"}
    assert names(registry, "z") is None


def test_configured_models_have_precedence_over_what_the_server_says(registry: Registry) -> None:
    registry.apply([backend(1, frozenset({"a"}))], 0.0, known_to_envoy=[backend(1)])
    registry.learn_models(registry.members[0].slot, frozenset({"b"}))
    assert names(registry, "a") == {"vllm-1"}


def test_places_of_a_departed_backend_are_not_expected_of_the_others(
    registry: Registry, fleet: Fleet
) -> None:
    small, large = Endpoint("small", "10.0.0.1", 8101), Endpoint("large", "10.0.0.2", 8102, max_num_seqs=256)
    slots = registry.apply([small, large], 0.0)
    for slot in reversed(slots):
        fleet.scraped(slot, Signals(2, 0), own_when_asked=0, now_s=1.0)
    assert fleet.states[slots[0]].places == 256
    registry.apply([small], 2.0)
    registry.advance(60.0)
    fleet.scraped(slots[0], Signals(2, 0), own_when_asked=0, now_s=61.0)
    assert fleet.states[slots[0]].places == inf


def test_slots_of_departed_backends_are_used_again(registry: Registry) -> None:
    for round_ in range(5000):
        registry.apply([backend(round_ % 50)], round_ * 10.0)
        registry.advance(round_ * 10.0 + 5.0)
    assert len(registry.members) == 1


def test_where_departing_ones_take_the_room_others_join_later(registry: Registry, fleet: Fleet) -> None:
    half = CAPACITY // 2
    generations = [[Endpoint(f"{g}-{n}", "10.0.0.1", n + 1) for n in range(half)] for g in range(3)]
    first, second, third = generations
    registry.apply(first, 0.0, known_to_envoy=first)
    slots = [member.slot for member in registry.members]
    for slot in slots:
        fleet.reserve(slot, 0.0)
    assert len(registry.apply(second, 0.0)) == half
    assert registry.apply(third, 0.0) == [], "nobody has left yet"
    for slot in slots:
        fleet.release(slot, 1.0)
    registry.advance(2.0)
    assert len(registry.apply(third, 2.0)) == half
