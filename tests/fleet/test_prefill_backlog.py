import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.fleet.prefill_backlog import PrefillBacklog
from extproc.fleet.signals import Signals

TOKEN_S = 1e-3
LAG_S = 0.4
LAG = LAG_S / TOKEN_S  # in tokens
ADMITTED = (
    0.5 * (1.0 - LAG_S) / TOKEN_S
)  # half of the time from the first prompt to the first gauges after it


def scraped(
    backlog: PrefillBacklog,
    running: float,
    waiting: float,
    now_s: float,
    stuck: float = 0.0,
    **counters: float,
) -> float:
    return backlog.scraped(Signals(running, waiting, **counters), stuck, TOKEN_S, now_s - LAG_S, now_s)


@pytest.fixture
def backlog() -> PrefillBacklog:
    """Three prompts of 100, 200 and 400 tokens, sent in the first tenths of a second."""
    backlog = PrefillBacklog()
    scraped(backlog, 0, 0, 0.0)
    for number, tokens in enumerate((100.0, 200.0, 400.0)):
        backlog.sent(number, tokens, number / 10)
    return backlog


def test_the_newest_prompts_are_those_that_waited_when_the_gauges_were_read(backlog: PrefillBacklog) -> None:
    scraped(backlog, 2, 1, 1.0)
    left = scraped(backlog, 2, 1, 3.0)
    assert left == pytest.approx(0, abs=1e-6), "it waited alone, and has been computed since"
    backlog.sent("long", 5000.0, 3.0)
    assert scraped(backlog, 3, 1, 4.0) == pytest.approx(5000 - LAG), "the one before was admitted long ago"


def test_prompts_under_computation_count_until_they_are_done_at_the_backends_rate(
    backlog: PrefillBacklog,
) -> None:
    backlog.sent("long", 10_000.0, 0.3)
    assert scraped(backlog, 4, 0, 1.0) == pytest.approx(10_700 - ADMITTED - LAG)
    assert scraped(backlog, 4, 0, 3.0) == pytest.approx(10_700 - ADMITTED - 2000 - LAG)
    assert scraped(backlog, 4, 0, 60.0) == 0.0


def test_prompts_too_young_for_the_gauges_are_computed_since_they_were_sent(backlog: PrefillBacklog) -> None:
    backlog.sent("younger", 50.0, 0.9)
    backlog.sent("youngest", 30.0, 0.98)
    assert scraped(backlog, 0, 0, 1.0) == pytest.approx(30 - 20), "the one before was done after 50 ms"


def test_a_young_prompt_comes_behind_those_that_waited(backlog: PrefillBacklog) -> None:
    backlog.sent("young", 50.0, 0.9)
    assert scraped(backlog, 0, 3, 1.0) == pytest.approx(700 + 50 - LAG)


def test_requests_stuck_before_the_engine_wait_though_no_gauge_says_so(backlog: PrefillBacklog) -> None:
    assert scraped(backlog, 0, 1, 1.0, stuck=2.0) == pytest.approx(700 - LAG)


def test_foreign_requests_that_wait_are_taken_to_be_of_the_usual_length() -> None:
    backlog = PrefillBacklog()
    for number in range(200):
        backlog.sent(number, 300.0, 0.0)
        backlog.ended(number)
    assert scraped(backlog, 4, 5, 1.0) == pytest.approx(5 * 300 - LAG, rel=0.01)


def test_a_request_that_ends_gives_back_a_prompt_that_still_waits_and_only_once(
    backlog: PrefillBacklog,
) -> None:
    assert scraped(backlog, 1, 2, 1.0) == pytest.approx(600 - LAG)
    assert backlog.ended(2) == 400.0
    assert backlog.ended(2) == 0.0
    assert backlog.ended(0) == 0.0, "it was computed long ago"
    assert scraped(backlog, 1, 1, 1.0) == 0.0, "what is left was computed since the gauges were read"
    assert scraped(backlog, 0, 0, 2.0) == 0.0


def test_the_share_of_time_spent_on_prompts_follows_the_counters_without_cached_tokens() -> None:
    backlog = PrefillBacklog()
    for tenth in range(200):
        computed, hits = tenth * 80.0, tenth * 500.0
        scraped(backlog, 1, 1, tenth / 10, prompt_tokens_total=computed + hits, prefix_hits_total=hits)
    assert backlog.share == pytest.approx(0.8, abs=0.01)


def test_prompts_that_are_counted_when_they_are_complete_make_the_same_share() -> None:
    backlog = PrefillBacklog()
    for tenth in range(600):
        complete = tenth // 25 * 25 * 80.0
        scraped(backlog, 1, 1, tenth / 10, prompt_tokens_total=complete)
    assert backlog.share == pytest.approx(0.8, abs=0.4)


def test_a_prompt_that_is_being_computed_is_known_as_such(backlog: PrefillBacklog) -> None:
    scraped(backlog, 3, 0, 1.0)
    assert backlog.is_computing
    scraped(backlog, 3, 0, 3.0)
    assert not backlog.is_computing


def test_all_that_were_admitted_before_the_newest_are_computed_whatever_the_pace_says() -> None:
    backlog = PrefillBacklog()
    for number in range(50):
        backlog.sent(number, 900.0, float(number))
        left = scraped(backlog, 30, 0, number + 0.5)
        assert left <= 2 * 900.0, "at a pace of one token a millisecond nearly all would be left by now"


def test_a_restart_of_the_server_is_no_work_done() -> None:
    backlog = PrefillBacklog()
    for second, total in enumerate((1e9, 0.0, 0.0)):
        scraped(backlog, 0, 0, float(second), prompt_tokens_total=total)
    assert backlog.share == 0.0


_steps = st.one_of(
    st.tuples(st.just("sent"), st.floats(0, 1e5)),
    st.tuples(st.just("ended"), st.floats(0, 50)),
    st.tuples(st.just("scraped"), st.floats(0, 100)),
)


@given(st.lists(_steps, max_size=80))
def test_the_backlog_is_never_negative_and_nothing_is_left_of_ended_requests(
    steps: list[tuple[str, float]],
) -> None:
    backlog, now_s, sent = PrefillBacklog(), 0.0, 0
    for step, value in steps:
        now_s += 0.1
        if step == "sent":
            backlog.sent(sent, value, now_s)
            sent += 1
        elif step == "ended":
            assert backlog.ended(int(value)) >= 0.0
        else:
            assert scraped(backlog, value, 100 - value, now_s) >= 0.0
    for number in range(sent):
        backlog.ended(number)
    assert scraped(backlog, 0, 0, now_s + 1.0) == 0.0
