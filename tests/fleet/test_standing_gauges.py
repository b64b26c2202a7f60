import pytest
from support.build import a_backend, fleet_rules, scrape, view_of

from extproc.fleet.backend import Backend
from extproc.fleet.standing_gauges import DOUBTED_AFTER_S

MAX_ACTIVE = 10
RULES = fleet_rules(max_active=MAX_ACTIVE, resume_load=8)
STEP_S = 0.5


@pytest.fixture
def backend() -> Backend:
    return a_backend(RULES)


def has_room(backend: Backend, now_s: float) -> bool:
    return view_of([backend], now_s).has_room(backend)


def full(backend: Backend, now_s: float, **counters: float) -> None:
    scrape(backend, running=20, waiting=5, now_s=now_s, **counters)


def stand_still(backend: Backend, from_s: float, **counters: float) -> float:
    """Scrape the same over and over; returns when the gauges are no evidence any more."""
    now_s = from_s
    while now_s <= from_s + DOUBTED_AFTER_S:
        full(backend, now_s, **counters)
        now_s += STEP_S
    return now_s - STEP_S


def test_a_server_whose_gauges_and_counters_stand_still_is_taken_to_be_idle(backend: Backend) -> None:
    full(backend, 10.0, prompt_tokens_total=5.0, generation_tokens_total=7.0)
    assert not has_room(backend, 10.0)
    now_s = stand_still(backend, 10.0, prompt_tokens_total=5.0, generation_tokens_total=7.0)
    assert has_room(backend, now_s)
    assert view_of([backend], now_s).facts(backend).load == 0.0


def test_it_gets_one_request_and_no_other_while_that_is_in_flight(backend: Backend) -> None:
    now_s = stand_still(backend, 10.0)
    backend.reserve(now_s)
    assert not has_room(backend, now_s)
    full(backend, now_s + STEP_S)
    assert not has_room(backend, now_s + STEP_S)
    backend.release(now_s + 20.0)
    full(backend, now_s + 20.0)
    assert has_room(backend, now_s + 20.0)


@pytest.mark.parametrize("counter", ["prompt_tokens_total", "generation_tokens_total", "ended_total"])
def test_a_counter_that_grows_while_nothing_of_ours_is_there_is_evidence(
    backend: Backend, counter: str
) -> None:
    for step in range(40):
        full(backend, 10.0 + STEP_S * step, **{counter: float(step)})
        assert not has_room(backend, 10.0 + STEP_S * step)


def test_gauges_that_change_are_evidence_without_any_counter(backend: Backend) -> None:
    for step in range(40):
        scrape(backend, running=20 + step % 2, waiting=5, now_s=10.0 + STEP_S * step)
        assert not has_room(backend, 10.0 + STEP_S * step)


def test_own_requests_that_wait_behind_a_huge_prompt_are_believed(backend: Backend) -> None:
    for _ in range(6):
        backend.reserve(10.0)
    for step in range(40):
        scrape(backend, running=1, waiting=5, now_s=10.0 + STEP_S * step)
    assert backend.waiting == 5.0
    assert view_of([backend], 29.5).facts(backend).load == 6.0


def test_one_that_is_idle_is_not_in_doubt(backend: Backend) -> None:
    for step in range(40):
        scrape(backend, running=0, waiting=0, now_s=10.0 + STEP_S * step)
    assert not backend.is_doubted
    backend.reserve(30.0)
    assert has_room(backend, 30.0)
