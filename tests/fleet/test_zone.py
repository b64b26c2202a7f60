from hypothesis import given
from hypothesis import strategies as st

from extproc.fleet.zone import learned_boundary


def test_a_slow_answer_at_a_low_load_pulls_the_boundary_down() -> None:
    assert learned_boundary(20.0, load=10, ttft_s=1.5, low_s=1.0) == 19.0


def test_a_fast_answer_at_a_high_load_pushes_the_boundary_up() -> None:
    assert learned_boundary(20.0, load=29, ttft_s=0.2, low_s=1.0) == 21.0


def test_an_answer_that_was_expected_moves_nothing() -> None:
    assert learned_boundary(20.0, load=10, ttft_s=0.2, low_s=1.0) == 20.0
    assert learned_boundary(20.0, load=30, ttft_s=2.0, low_s=1.0) == 20.0


@given(st.integers(2, 90), st.lists(st.integers(0, 99), min_size=300, max_size=300))
def test_the_boundary_settles_where_ttft_crosses_the_bound(knee: int, loads: list[int]) -> None:
    boundary = 16.0
    for load in [*loads, *range(0, 100), *reversed(range(0, 100)), *([knee - 1, knee] * 100)]:
        boundary = learned_boundary(boundary, load, ttft_s=2.0 if load >= knee else 0.1, low_s=1.0)
    assert knee - 1 <= boundary <= knee + 1
