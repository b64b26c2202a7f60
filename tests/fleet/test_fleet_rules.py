from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.fleet.adaptive_limit import AdaptiveRule
from extproc.fleet.fleet_rules import LASTING_S, SETTLED_S, SaturationRule, WaitingRule, queued_s

SATURATION = SaturationRule(max_active=10, resume_load=8)


def saturated_along(loads: list[float]) -> list[bool]:
    """Whether the backend is saturated as its load takes these values one after the other."""
    closed_above, result = SATURATION.opened(SATURATION.max_active), []
    for load in loads:
        closed_above = SATURATION.closes_above(load, closed_above, SATURATION.max_active)
        result.append(load > closed_above)
    return result


def test_a_backend_is_saturated_when_one_more_request_would_exceed_the_limit() -> None:
    assert saturated_along([8, 9, 10]) == [False, False, True]


def test_a_saturated_backend_comes_back_only_at_the_resume_load() -> None:
    assert saturated_along([10, 9, 10, 9, 8, 9]) == [True, True, True, True, False, False]


def test_the_load_to_come_back_at_moves_with_the_limit() -> None:
    moving = SaturationRule(16, adaptive=AdaptiveRule(4, 500), resume_share=0.8)
    assert moving.closes_above(100, closed_above=99, max_active=100) == 80
    assert moving.closes_above(81, closed_above=80, max_active=200) == 160
    assert moving.closes_above(80, closed_above=80, max_active=100) == 99


WAITING = WaitingRule(burst_s=5.0, standing_share=0.2)


def test_a_young_queue_may_be_a_burst_and_one_that_stands_is_kept_short() -> None:
    assert WAITING.allowed_s(SETTLED_S) == 5.0
    assert WAITING.allowed_s((SETTLED_S + LASTING_S) / 2) == pytest.approx(3.0)
    assert WAITING.allowed_s(LASTING_S) == 1.0


def test_a_request_that_waits_for_the_next_iteration_is_no_queue() -> None:
    assert WAITING.allowed_s(0.9 * SETTLED_S) == inf


def test_as_many_may_wait_as_get_their_turn_in_time() -> None:
    closes_above = WAITING.closes_above(load=15, waiting=3, queued_s=LASTING_S, turn_s=0.2)
    running, in_time = 12, 5
    assert closes_above + 1 == pytest.approx(running + in_time)


@given(st.floats(0, 1000), st.floats(0, LASTING_S), st.floats(1e-3, 1e6))
def test_a_backend_with_an_empty_queue_is_never_closed_however_slow_it_seems(
    load: float, known_s: float, turn_s: float
) -> None:
    assert WAITING.closes_above(load, 0.0, known_s, turn_s) == inf


@given(st.floats(0, LASTING_S), st.floats(0, LASTING_S), st.floats(1e-3, 100), st.floats(1, 100))
def test_the_older_a_queue_is_the_fewer_requests_may_wait(
    one_s: float, other_s: float, turn_s: float, waiting: float
) -> None:
    shorter_s, longer_s = sorted((one_s, other_s))
    assert WAITING.closes_above(100, waiting, longer_s, turn_s) <= WAITING.closes_above(
        100, waiting, shorter_s, turn_s
    )


def test_a_queue_is_forgotten_in_the_time_that_it_takes_to_be_known() -> None:
    known_s = 0.0
    for _ in range(200):
        known_s = queued_s(known_s, waiting=1, elapsed_s=0.1)
    assert known_s == LASTING_S
    for _ in range(101):
        known_s = queued_s(known_s, waiting=0, elapsed_s=0.1)
    assert known_s == 0.0
