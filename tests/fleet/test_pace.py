from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.fleet.pace import FORGETTING_S, LEAST_SLOPE, UNKNOWN, Answered, Pace, PaceLearning

NOW_S = 100.0


def learned(
    outcomes: list[Answered], limit: float = inf, common: Pace = UNKNOWN, every_s: float = 0.1
) -> Pace:
    learning, pace = PaceLearning(), UNKNOWN
    for number, seen in enumerate(outcomes):
        pace = learning.learn(pace, seen, limit, common, NOW_S + every_s * number)
    return pace


def test_the_line_of_ttft_over_prompt_tokens_is_found() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.integers(10, 2000, 300).tolist()
    pace = learned([Answered(1, each, 0.0, 0.05 + 4e-4 * each, 1.0) for each in tokens])
    assert pace.base_s == pytest.approx(0.05, rel=0.1)
    assert pace.token_s == pytest.approx(4e-4, rel=0.1)


def test_with_prompts_of_one_length_the_line_is_the_fleets_scaled_to_what_was_seen() -> None:
    common = Pace(base_s=0.01, token_s=3e-4)
    pace = learned([Answered(1, 100, 0.0, 0.12, 1.0)] * 200, common=common)
    assert pace.base_s == pytest.approx(0.03, rel=0.1)
    assert pace.token_s == pytest.approx(9e-4, rel=0.1)


def test_a_wrong_idea_of_the_prompts_ahead_does_not_tell_the_time_of_a_token() -> None:
    rng = np.random.default_rng(2)
    outcomes = []
    for new, ahead, error in rng.integers(0, 2000, (500, 3)).tolist():
        ttft_s = 0.05 + 4e-4 * (new + ahead)
        outcomes.append(Answered(1, new, max(0.0, ahead + error - 1000.0), ttft_s, 1.0))
    assert learned(outcomes).token_s == pytest.approx(4e-4, rel=0.15)


def test_waits_that_fall_with_the_prompt_do_not_make_prompts_ahead_free() -> None:
    """Short prompts met a queue that the estimate knew nothing of, and long ones did not."""
    outcomes = [Answered(1, 100, 0.0, 3.0, 1.0), Answered(1, 2000, 0.0, 0.3, 1.0)] * 100
    assert learned(outcomes).token_s >= LEAST_SLOPE * UNKNOWN.token_s


def test_a_grotesque_belief_is_given_up_within_some_dozens_of_answers() -> None:
    learning, pace = PaceLearning(), Pace(token_s=7e-3)
    for _ in range(200):
        pace = learning.learn(pace, Answered(1, 1000, 800.0, 12.0, 1.0), inf, pace, NOW_S)
    for _ in range(60):
        pace = learning.learn(pace, Answered(1, 1000, 0.0, 0.15, 1.0), inf, pace, NOW_S + 60.0)
    assert pace.base_s + 1000 * pace.token_s < 0.5


def test_a_wait_for_memory_tells_nothing_of_the_pace() -> None:
    quick = [Answered(1, 100, 0.0, 0.05, 1.0)] * 50
    then_slow = learned([*quick, Answered(1, 100, 0.0, 5.0, 1.0, turns_s=4.0)])
    assert then_slow.base_s == pytest.approx(learned(quick).base_s, rel=0.01)


def test_the_turn_is_learned_from_waits_in_the_queue() -> None:
    waits = [Answered(load, 0, 0.0, 0.02 + 0.25 * (load - 7), 1.0) for load in range(8, 28)]
    assert learned(waits * 10, limit=8).turn_s == pytest.approx(0.25, rel=0.1)


def test_before_a_request_has_waited_the_turn_is_the_stay_divided_by_the_places() -> None:
    pace = learned([Answered(1, 0, 0.0, 0.02, 4.0)] * 200, limit=8)
    assert pace.turn_s == pytest.approx(4.0 / 8, rel=0.05)


def test_an_answer_of_unknown_length_teaches_no_stay() -> None:
    known = [Answered(1, 0, 0.0, 0.02, 4.0)] * 20
    unknown = [Answered(1, 0, 0.0, 0.02, None)] * 20
    assert learned(known + unknown, limit=8).stay_s == pytest.approx(learned(known, limit=8).stay_s, rel=0.01)


def test_after_long_silence_one_outcome_leaves_the_backend_near_the_pace_of_the_fleet() -> None:
    slow = [Answered(1, 0, 0.0, 3.0, 1.0)] * 50
    long_after = learned(slow, common=Pace(base_s=0.1))
    assert long_after.base_s > 2.0
    learning, pace = PaceLearning(), UNKNOWN
    for seen in slow:
        pace = learning.learn(pace, seen, inf, Pace(base_s=0.1), NOW_S)
    pace = learning.learn(
        pace, Answered(1, 0, 0.0, 0.1, 1.0), inf, Pace(base_s=0.1), NOW_S + 20 * FORGETTING_S
    )
    assert pace.base_s == pytest.approx(0.1, rel=0.01)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 200), st.floats(0, 1e6), st.floats(1e-3, 1e3), st.floats(0, 1e3), st.floats(0, 1e4)
        ),
        max_size=40,
    ),
    st.sampled_from([1.0, 8.0, inf]),
)
def test_a_pace_is_finite_and_never_negative(
    outcomes: list[tuple[float, float, float, float, float]], limit: float
) -> None:
    learning, pace, now_s = PaceLearning(), UNKNOWN, 0.0
    for load, tokens, ttft_s, decode_s, passed_s in outcomes:
        now_s += passed_s
        pace = learning.learn(pace, Answered(load, tokens, 0.0, ttft_s, decode_s), limit, pace, now_s)
        for value in (pace.base_s, pace.token_s, pace.turn_s, pace.stay_s):
            assert 0.0 <= value < inf


def test_prompts_that_were_in_the_prefix_cache_by_surprise_do_not_make_tokens_free() -> None:
    outcomes = []
    for number in range(100):
        tokens = 1000.0 * (1 + number % 50)
        ttft_s = 0.05 if number % 10 == 0 else 0.05 + 2e-4 * tokens
        outcomes.append(Answered(1, tokens, 0.0, ttft_s, 1.0))
    assert learned(outcomes).token_s == pytest.approx(2e-4, rel=0.2)


def test_a_few_long_waits_do_not_tell_what_a_short_prompt_takes() -> None:
    short = [Answered(1, 100.0 + number % 7, 0.0, 0.05, 1.0) for number in range(50)]
    long = [Answered(1, 20_000.0 + 100 * number, 0.0, 6.0, 1.0) for number in range(5)]
    pace = learned([*short, *long])
    assert pace.base_s + pace.token_s * 100 == pytest.approx(0.05, rel=0.2)
