import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.fleet.own_history import ANSWER_S, BUCKET_S, WINDOW_S, DrainRate, OwnHistory


def test_the_largest_of_the_last_second_is_remembered() -> None:
    history = OwnHistory()
    history.record(7, 10.0)
    history.record(1, 10.3)
    assert history.extremes(10.9) == (0, 7)


def test_what_is_older_than_the_window_is_forgotten() -> None:
    history = OwnHistory()
    history.record(7, 10.0)
    history.record(1, 10.3)
    assert history.extremes(10.4 + WINDOW_S + BUCKET_S) == (1, 1)


def test_a_steady_number_survives_silence() -> None:
    history = OwnHistory()
    history.record(5, 10.0)
    assert history.extremes(500.0) == (5, 5)


def test_every_history_starts_at_zero_whatever_others_have_seen() -> None:
    other, history = OwnHistory(), OwnHistory()
    other.record(5, 10.0)
    assert history.extremes(10.0) == (0, 0)
    assert OwnHistory().extremes(10.0) == (0, 0)


@given(st.lists(st.tuples(st.floats(0.0, 0.5), st.integers(0, 50)), min_size=1, max_size=40))
def test_the_extremes_bound_everything_within_the_window(steps: list[tuple[float, int]]) -> None:
    history = OwnHistory()
    now_s, seen = 100.0, [(100.0, 0)]
    for elapsed_s, own in steps:
        now_s += elapsed_s
        history.record(own, now_s)
        seen.append((now_s, own))
    smallest, largest = history.extremes(now_s)
    recent = [own for at_s, own in seen if at_s >= now_s - WINDOW_S]
    assert smallest <= min(recent)
    assert largest >= max(recent)
    assert smallest <= seen[-1][1] <= largest


def test_a_steady_drain_is_measured() -> None:
    rate = DrainRate()
    for step in range(500):
        rate.finished(step * 0.1)
    assert rate.per_second(5, 50.0) == pytest.approx(10.0, rel=0.05)


def test_a_rate_fades_in_silence() -> None:
    rate = DrainRate()
    rate.finished(0.0)
    assert rate.per_second(5, 100.0) < 1e-4


def test_nothing_finished_is_a_rate_of_zero() -> None:
    assert DrainRate().per_second(5, 5.0) == 0.0


def test_a_backend_that_was_idle_is_expected_to_answer_what_it_has_until_that_is_disproved() -> None:
    rate = DrainRate()
    rate.became_busy(1000.0)
    assert rate.per_second(50, 1000.0) == 50 / ANSWER_S
    assert rate.per_second(50, 1000.0 + ANSWER_S) < 25 / ANSWER_S
    assert rate.per_second(50, 1100.0) < 0.01


def test_the_number_at_a_moment_is_the_one_after_the_last_change() -> None:
    history = OwnHistory()
    for own, now_s in ((1, 1.0), (2, 1.5), (1, 1.7)):
        history.record(own, now_s)
    assert [history.own_at(moment_s) for moment_s in (0.0, 1.0, 1.4, 1.6, 9.0)] == [0, 1, 1, 2, 1]


def test_changes_are_remembered_up_to_a_bound() -> None:
    history = OwnHistory()
    for number in range(100_000):
        history.record(number, number * 1e-3)
    assert history.own_at(99.9) == 99_900
    assert history.own_at(0.0) > 98_000, "the earliest that is known"
