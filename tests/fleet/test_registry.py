import time
from collections.abc import Sequence
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.build import a_fleet, an_endpoint, reserve, scrape

from extproc.fleet.backend import Backend, Lifecycle
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.fleet import Fleet
from extproc.fleet.inference_stage import InferenceStage
from extproc.fleet.lost_models import LOST_FOR_S, MAX_LOST_MODELS
from extproc.fleet.registry import MAX_MEMBERS, Registry

SETTLE_S = 1.5


def endpoint(number: int, models: str | None = None, **changes: object) -> Endpoint:
    """An endpoint that serves the models of these letters; None where the server has to be asked."""
    return an_endpoint(number, models=None if models is None else frozenset(models), **changes)


@pytest.fixture
def fleet() -> Fleet:
    return a_fleet(0)


@pytest.fixture
def registry(fleet: Fleet) -> Registry:
    return Registry(fleet, SETTLE_S)


def names(registry: Registry, model: str | None = None) -> set[str] | None:
    candidates = registry.candidates(model)
    return None if candidates is None else {backend.name for backend in candidates}


def cluster_names(registry: Registry) -> list[str]:
    return [cluster.name for cluster in registry.clusters()]


def active(registry: Registry, *endpoints: Endpoint) -> Sequence[Backend]:
    """Let the fleet consist of endpoints that Envoy knows."""
    registry.apply(endpoints, 0.0, known_to_envoy=endpoints)
    return registry.members


def test_a_new_backend_is_chosen_only_once_envoy_had_time_to_load_its_cluster(registry: Registry) -> None:
    registry.apply([endpoint(1)], 10.0)
    assert names(registry) == set()
    registry.advance(11.4)
    assert names(registry) == set()
    registry.advance(11.5)
    assert names(registry) == {"vllm-1"}


def test_a_backend_whose_cluster_survived_our_restart_is_chosen_at_once(registry: Registry) -> None:
    moved = endpoint(2, host="10.0.0.9")
    registry.apply([endpoint(1), endpoint(2)], 10.0, known_to_envoy=[endpoint(1), moved])
    assert names(registry) == {"vllm-1"}


def test_a_departing_backend_drains_before_it_loses_its_cluster(registry: Registry) -> None:
    one, _ = active(registry, endpoint(1), endpoint(2))
    one.reserve(1.0)
    registry.apply([endpoint(2)], 2.0)
    assert names(registry) == {"vllm-2"}
    assert not registry.advance(60.0)
    assert cluster_names(registry) == ["vllm-1", "vllm-2"]
    one.release(61.0)
    assert registry.advance(61.0)
    assert cluster_names(registry) == ["vllm-2"]
    assert registry.backend_named("vllm-1") is None


def test_a_backend_that_returns_while_it_drains_is_chosen_again(registry: Registry) -> None:
    (one,) = active(registry, endpoint(1))
    registry.apply([endpoint(2)], 1.0)
    registry.apply([endpoint(1), endpoint(2)], 1.2)
    assert names(registry) == {"vllm-1"}
    assert registry.backend_named("vllm-1") is one


def test_a_backend_that_returns_after_it_has_left_starts_afresh(registry: Registry) -> None:
    (one,) = active(registry, endpoint(1))
    scrape(one, running=9, now_s=0.5)
    registry.apply([], 1.0)
    registry.advance(10.0)
    (again,) = registry.apply([endpoint(1)], 11.0)
    assert registry.backend_named("vllm-1") is again
    assert (again is one, again.foreign, again.lifecycle) == (False, 0.0, Lifecycle.JOINING)


def test_a_backend_with_a_new_address_is_another_backend(registry: Registry) -> None:
    (old,) = active(registry, endpoint(1))
    old.reserve(0.5)
    registry.apply([endpoint(1, host="10.0.0.7")], 1.0)
    registry.advance(3.0)
    new = registry.backend_named("vllm-1")
    assert new is not None
    assert new is not old
    assert [cluster.host for cluster in registry.clusters()] == ["10.0.0.7"]
    assert (old.lifecycle, new.lifecycle) == (Lifecycle.DRAINING, Lifecycle.ACTIVE)
    assert (old.own, new.own) == (1, 0)


def test_an_unchanged_backend_stays_the_same_object_when_others_change(registry: Registry) -> None:
    registry.apply([endpoint(1), endpoint(2)], 0.0)
    registry.advance(2.0)
    before = registry.backend_named("vllm-2")
    (joined,) = registry.apply([endpoint(3), endpoint(2)], 3.0)
    assert joined.name == "vllm-3"
    assert registry.backend_named("vllm-2") is before


def test_candidates_are_those_that_serve_the_model(registry: Registry) -> None:
    active(registry, endpoint(1, "a"), endpoint(2, "ab"))
    assert names(registry, "a") == {"vllm-1", "vllm-2"}
    assert names(registry, "b") == {"vllm-2"}
    assert names(registry, None) == {"vllm-1", "vllm-2"}


def test_a_server_that_only_prefills_is_a_member_but_no_candidate(registry: Registry) -> None:
    prefill = endpoint(2, "a", stages=frozenset({InferenceStage.PREFILL}))
    active(registry, endpoint(1, "a"), prefill)
    assert names(registry, "a") == names(registry) == {"vllm-1"}
    assert len(registry.members) == 2
    registry.apply([endpoint(1, "a"), endpoint(2, "a")], 100.0)
    assert names(registry, "a") == {"vllm-1", "vllm-2"}, "its label has changed"


def test_a_model_that_no_backend_serves_is_known_to_be_missing(registry: Registry) -> None:
    active(registry, endpoint(1, "a"))
    assert names(registry, "z") is None
    assert (registry.is_served("a"), registry.is_served("z")) == (True, False)


def test_a_backend_that_has_not_said_what_it_serves_may_serve_anything(registry: Registry) -> None:
    active(registry, endpoint(1, "a"), endpoint(2))
    assert names(registry, "z") == {"vllm-2"}
    assert names(registry, "a") == {"vllm-1"}


def test_before_a_backend_is_active_no_model_is_known_to_be_missing(registry: Registry) -> None:
    registry.apply([endpoint(1, "a")], 0.0)
    assert names(registry, "z") == set()


def test_the_models_that_a_server_reports_are_learned(registry: Registry) -> None:
    (one,) = active(registry, endpoint(1))
    registry.learn_models(one, frozenset({"a"}))
    assert names(registry, "a") == {"vllm-1"}
    assert names(registry, "z") is None


@pytest.mark.parametrize("lie", [1, 10**9, None])
def test_one_of_three_servers_cannot_lie_about_the_context_of_a_model(
    registry: Registry, lie: int | None
) -> None:
    one, two, liar = active(registry, endpoint(1), endpoint(2), endpoint(3))
    for member, length in ((one, 8192), (two, 8192), (liar, lie)):
        registry.learn_models(member, frozenset({"m"}))
        member.context_lengths = {} if length is None else {"m": length}
    assert registry.longest_prompts() == {"m": 8192}


def test_the_longest_prompt_of_a_model_is_that_of_the_one_of_two_servers_with_the_longer_context(
    registry: Registry,
) -> None:
    one, two = active(registry, endpoint(1), endpoint(2))
    registry.learn_models(one, frozenset({"m", "adapter"}))
    registry.learn_models(two, frozenset({"m"}))
    one.context_lengths = {"m": 4096}
    assert registry.longest_prompts() == {"adapter": 4096}, "the other has not said"
    two.context_lengths = {"m": 8192}
    assert registry.longest_prompts() == {"m": 8192, "adapter": 4096}


MODELS = st.frozensets(st.sampled_from("abc"), max_size=3)


@given(st.lists(st.tuples(st.integers(0, 4), MODELS), max_size=20))
def test_candidates_follow_what_servers_tell_as_if_all_were_looked_at_again(
    told: list[tuple[int, frozenset[str]]],
) -> None:
    registry = Registry(a_fleet(0), SETTLE_S)
    found = [endpoint(number) for number in range(4)]
    members = active(registry, *found)
    (late,) = registry.apply([*found, endpoint(9)], 1.0)

    def seen() -> list[object]:
        return [registry.models(), *(registry.candidates(model) for model in (None, "a", "b", "c", "z"))]

    for number, models in told:
        registry.learn_models([*members, late][number], models)
        at_once = seen()
        registry.apply([*found, endpoint(9)], 1.0)
        assert seen() == at_once


def test_a_thousand_servers_that_join_at_once_tell_their_models_in_little_time(registry: Registry) -> None:
    members = active(registry, *(endpoint(number) for number in range(1000)))
    began_s = time.thread_time()
    for member in members:
        registry.learn_models(member, frozenset({"m"}))
    assert time.thread_time() - began_s < 0.5, "it took seconds to look at all members for each"
    assert registry.candidates("m") == tuple(members)


def test_configured_models_have_precedence_over_what_the_server_says(registry: Registry) -> None:
    (one,) = active(registry, endpoint(1, "a"))
    registry.learn_models(one, frozenset({"b"}))
    assert names(registry, "a") == {"vllm-1"}
    assert names(registry, "b") is None


def test_the_places_of_a_backend_are_expected_of_the_others_until_it_has_left(registry: Registry) -> None:
    small, large = registry.apply([endpoint(1), endpoint(2, max_num_seqs=3)], 0.0)
    scrape(large, running=2, now_s=1.0)
    scrape(small, running=2, now_s=1.0)
    assert small.places == 3
    registry.apply([endpoint(1)], 2.0)
    registry.advance(60.0)
    scrape(small, running=2, now_s=61.0)
    assert small.places == inf


def test_departed_backends_are_members_no_more(registry: Registry) -> None:
    for round_ in range(5000):
        registry.apply([endpoint(round_ % 50)], round_ * 10.0)
        registry.advance(round_ * 10.0 + 5.0)
    assert [member.name for member in registry.members] == ["vllm-49"]


def test_while_departing_members_take_the_room_others_join_later(registry: Registry) -> None:
    half = MAX_MEMBERS // 2
    generations = [[an_endpoint(n, name=f"{generation}-{n}") for n in range(half)] for generation in range(3)]
    first, second, third = generations
    members = active(registry, *first)
    for member in members:
        reserve(member, 1, 0.0)
    assert len(registry.apply(second, 0.0)) == half
    assert registry.apply(third, 0.0) == [], "the first have requests, and have not left yet"
    for member in members:
        member.release(1.0)
    registry.advance(2.0)
    assert len(registry.apply(third, 2.0)) == half


def test_a_model_whose_last_backend_left_is_lost_for_some_minutes(registry: Registry) -> None:
    active(registry, endpoint(1, "mn"), endpoint(2, "n"))
    assert not registry.has_lost("m", 0.0)
    registry.apply([endpoint(2, "n")], 10.0)
    assert registry.candidates("m") is None
    assert registry.has_lost("m", 11.0)
    assert not registry.has_lost("never heard of", 11.0)
    registry.apply([endpoint(2, "n")], 500.0)
    registry.advance(501.0)
    assert registry.has_lost("m", 10.0 + LOST_FOR_S - 1.0)
    assert not registry.has_lost("m", 10.0 + LOST_FOR_S)


def test_a_model_that_a_server_says_it_has_no_more_is_not_lost(registry: Registry) -> None:
    one, *_ = active(registry, endpoint(1), endpoint(2, "n"))
    registry.learn_models(one, frozenset("m"))
    registry.learn_models(one, frozenset("n"))
    assert not registry.has_lost("m", 1.0)


def test_the_number_of_lost_models_is_bounded(registry: Registry) -> None:
    for number in range(3):
        models = frozenset(f"{number}-{each}" for each in range(1000))
        active(registry, an_endpoint(number, models=models))
        registry.apply([], float(number))
        registry.advance(10.0 + number)
    assert sum(registry.has_lost(f"{n}-{m}", 5.0) for n in range(3) for m in range(1000)) == MAX_LOST_MODELS


def test_all_models_of_backends_that_may_be_chosen_are_listed(registry: Registry) -> None:
    one, *_ = active(registry, endpoint(1, "ba"), endpoint(2, "c"), endpoint(3))
    assert registry.models() == ["a", "b", "c"]
    registry.apply([endpoint(1, "ba")], 1.0)
    assert registry.models() == ["a", "b"]
    assert one.name == "vllm-1"


def test_calls_of_grpc_and_other_requests_have_candidates_of_their_own(registry: Registry) -> None:
    both, http = endpoint(1, "a", grpc_port=50051), endpoint(2, "a")
    only = endpoint(3, "a", grpc_port=3, serves_http=False)
    active(registry, both, http, only)
    assert names(registry, "a") == names(registry) == {"vllm-1", "vllm-2"}
    assert [backend.name for backend in registry.speaking_grpc] == ["vllm-1", "vllm-3"]
    registry.apply([http, only], 1.0)
    assert [backend.name for backend in registry.speaking_grpc] == ["vllm-3"]
