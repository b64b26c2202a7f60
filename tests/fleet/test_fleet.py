from math import inf, isnan

import pytest
from support.build import FAILURES, a_fleet, an_endpoint, fleet_rules, scrape

from extproc.fleet.backend import Backend
from extproc.fleet.fleet import Fleet
from extproc.fleet.pace import Answered

RULES = fleet_rules(max_active=10, resume_load=8)


@pytest.fixture
def fleet() -> Fleet:
    return a_fleet(2, RULES)


@pytest.fixture
def one(fleet: Fleet) -> Backend:
    return fleet.backends[0]


@pytest.fixture
def two(fleet: Fleet) -> Backend:
    return fleet.backends[1]


def is_admitting(backend: Backend, now_s: float) -> bool:
    return backend.breaker.admits_at_s <= now_s


def test_a_backend_without_a_limit_is_taken_to_have_the_places_of_others(fleet: Fleet, one: Backend) -> None:
    limited = fleet.join(an_endpoint(3, max_num_seqs=4))
    scrape(one, running=2, now_s=10.0)
    assert one.places == inf
    scrape(limited, running=2, now_s=10.0)
    scrape(one, running=2, now_s=10.1)
    assert (one.places, one.running_limit) == (4, inf)
    scrape(one, running=9, now_s=10.2)
    assert one.places == 9


def test_places_that_follow_from_the_kv_memory_are_not_expected_of_others(fleet: Fleet, one: Backend) -> None:
    other = fleet.backends[1]
    other.expect_prompt("long", 9000.0, 0.0)
    for tenth in range(1, 40):
        full = {"kv_cache_fraction": 0.95, "kv_cache_tokens": 20_000.0}
        scrape(other, 2, 1, now_s=tenth / 10, ended_total=tenth / 2, **full)
        scrape(one, 1, now_s=tenth / 10)
    assert other.places == 2
    assert one.places == inf
    scrape(other, 5, now_s=4.1, ended_total=20, kv_cache_fraction=0.5, kv_cache_tokens=20_000.0)
    assert other.places == 5
    scrape(other, 3, 1, now_s=4.2, ended_total=20, kv_cache_fraction=0.95, kv_cache_tokens=20_000.0)
    assert other.places == 3, "while others wait for memory, as many as have some"


def test_no_backend_is_taken_to_have_fewer_places_than_it_has_run(fleet: Fleet, one: Backend) -> None:
    scrape(one, 9, now_s=0.1)
    other = fleet.backends[1]
    for tenth in range(1, 40):
        scrape(other, 2, 1, now_s=tenth / 10, ended_total=tenth / 2)
        scrape(one, 1, now_s=tenth / 10)
    assert (other.places, one.places) == (2, 9)
    scrape(one, 999_999, now_s=4.1)
    scrape(one, 1, now_s=4.2)
    assert one.places == one.limits.max_active, "a moment's lie does not stay"


def test_the_places_of_a_backend_that_has_left_are_not_expected_of_the_others(
    fleet: Fleet, one: Backend
) -> None:
    limited = fleet.join(an_endpoint(3, max_num_seqs=8))
    scrape(limited, running=2, now_s=1.0)
    scrape(one, running=2, now_s=1.0)
    assert one.places == 8
    fleet.leave({limited})
    scrape(one, running=2, now_s=2.0)
    assert one.places == inf


def test_a_backend_that_lies_about_its_places_makes_no_other_look_faster(fleet: Fleet, one: Backend) -> None:
    liar = fleet.join(an_endpoint(3))
    scrape(one, running=4, now_s=1.0)
    honest_turn_s = one.pace.turn_s
    scrape(liar, running=999_999, waiting=1, ended_total=0, now_s=3.0)
    scrape(liar, running=999_999, waiting=1, ended_total=125_000, now_s=3.1)
    assert liar.places == 999_999
    scrape(one, running=4, now_s=3.3)
    assert one.places == RULES.saturation.max_active
    assert one.pace.turn_s >= honest_turn_s


def test_the_usual_number_of_places_is_that_of_the_middle_one(fleet: Fleet, one: Backend) -> None:
    for number, places in enumerate((3, 5, 9), start=3):
        scrape(fleet.join(an_endpoint(number, max_num_seqs=places)), running=2, now_s=1.0)
    scrape(one, running=2, now_s=1.0)
    assert one.places == 5


def test_a_backend_that_joins_again_starts_afresh(fleet: Fleet, one: Backend) -> None:
    scrape(one, running=9, waiting=9, kv_cache_fraction=0.9, now_s=10.0)
    one.observed(3.0)
    fleet.prefixes.sent(one, (1, 2, 3), 100, 0)
    for _ in range(FAILURES):
        one.breaker.fail(10.0)
    fleet.leave({one})
    again = fleet.join(one.endpoint)
    assert again is not one
    assert fleet.view([again], 10.0).facts(again).load == 0.0
    assert isnan(again.observed_ttft_s)
    assert is_admitting(again, 10.0)
    assert fleet.prefixes.blocks_at((1, 2, 3)) == {}


def test_a_new_backend_is_taken_to_be_like_the_fleet_and_knows_nothing_of_the_one_before(
    fleet: Fleet, one: Backend, two: Backend
) -> None:
    for second in range(50):
        one.paced(Answered(1.0, 100.0, 0.0, 0.5, 1.0), float(second))
        two.paced(Answered(1.0, 100.0, 0.0, 2.5, 1.0), float(second))
    assert one.pace.base_s + 100 * one.pace.token_s < 0.6
    assert two.pace.base_s + 100 * two.pace.token_s > 2.0
    fleet.leave({two})
    newcomer = fleet.join(two.endpoint)
    fleet_base_s = newcomer.pace.base_s
    assert one.pace.base_s < fleet_base_s < 2.0
    newcomer.paced(Answered(1.0, 100.0, 0.0, 0.1, 1.0), 50.0)
    assert newcomer.pace.base_s < fleet_base_s


def test_a_backend_that_hangs_with_requests_of_ours_fails_where_another_answers(
    fleet: Fleet, one: Backend, two: Backend
) -> None:
    one.reserve(9.0)
    for _ in range(FAILURES):
        fleet.scrape_hung(one, 10.0)
    assert is_admitting(one, 10.0), "perhaps the sidecar cannot reach any backend"
    scrape(two, now_s=9.5)
    for _ in range(FAILURES):
        fleet.scrape_hung(one, 10.0)
    assert not is_admitting(one, 10.0)
    scrape(one, running=1, now_s=10.5)
    assert is_admitting(one, 10.5), "a probe, as soon as it answers"


def test_a_backend_that_hangs_without_requests_of_ours_is_left_alone(
    fleet: Fleet, one: Backend, two: Backend
) -> None:
    scrape(two, now_s=9.5)
    for _ in range(3 * FAILURES):
        fleet.scrape_hung(one, 10.0)
    assert is_admitting(one, 10.0)


def test_a_backend_that_has_left_answers_for_no_other(fleet: Fleet, one: Backend, two: Backend) -> None:
    one.reserve(9.0)
    scrape(two, now_s=9.5)
    fleet.leave({two})
    for _ in range(FAILURES):
        fleet.scrape_hung(one, 10.0)
    assert is_admitting(one, 10.0)
