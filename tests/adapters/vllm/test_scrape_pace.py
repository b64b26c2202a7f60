import pytest

from extproc.adapters.vllm.scrape_pace import CPU_SHARE, MAX_PAUSE_S, ScrapePace
from extproc.fleet.signals import ScrapeRule

RULE = ScrapeRule()


def test_what_answers_cost_is_paid_with_pauses() -> None:
    pace = ScrapePace(RULE, 0.0)
    now_s = spent_s = 0.0
    while now_s < 100.0:
        pace.spend(0.02, now_s)
        spent_s += 0.02
        now_s += pace.interval_s(RULE.busy_interval_s)
    assert spent_s == pytest.approx(100.0 * CPU_SHARE, rel=0.1)


def test_one_answer_that_was_slow_to_read_delays_nothing() -> None:
    pace = ScrapePace(RULE, 0.0)
    pace.spend(0.03, 0.0)
    assert pace.interval_s(RULE.busy_interval_s) == RULE.busy_interval_s


def test_a_server_that_wants_another_key_is_asked_as_rarely_as_for_its_models() -> None:
    pace = ScrapePace(RULE, 0.0)
    for _ in range(8):
        pace.answered(is_useful=False, is_locked=True)
    assert pace.interval_s(RULE.busy_interval_s) == RULE.models_interval_s
    pace.answered(is_useful=True)
    assert pace.interval_s(RULE.busy_interval_s) == RULE.busy_interval_s


def test_useless_answers_are_asked_for_less_and_less_often_until_one_is_useful() -> None:
    pace = ScrapePace(RULE, 0.0)
    intervals_s = []
    for _ in range(8):
        pace.answered(is_useful=False)
        intervals_s.append(pace.interval_s(RULE.busy_interval_s))
    assert intervals_s == [1.0, 2.0, 4.0, *[MAX_PAUSE_S] * 5]
    pace.answered(is_useful=True)
    assert pace.interval_s(RULE.busy_interval_s) == RULE.busy_interval_s


def test_models_are_asked_for_again_soon_after_a_restart() -> None:
    pace = ScrapePace(RULE, 0.0)
    pace.models_answered(is_useful=True, now_s=1.0)
    assert not pace.are_models_due(1.0 + RULE.models_interval_s - 0.1)
    pace.restarted()
    assert pace.are_models_due(2.0)
