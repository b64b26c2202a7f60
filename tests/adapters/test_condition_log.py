import logging

import pytest

from extproc.adapters.condition_log import REPEAT_S, ConditionLog


@pytest.fixture
def conditions(caplog: pytest.LogCaptureFixture) -> ConditionLog:
    caplog.set_level(logging.INFO)
    return ConditionLog(logging.getLogger("test"))


def test_a_lasting_fault_is_logged_once_and_again_every_thirty_seconds(
    conditions: ConditionLog, caplog: pytest.LogCaptureFixture
) -> None:
    for tenth in range(10 * int(2 * REPEAT_S) + 1):
        conditions.failed("vllm-1", "scrape_failed", "refused", 1000.0 + tenth / 10)
    assert caplog.messages == ["scrape_failed name=vllm-1 error=refused"] * 3
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_errors_that_alternate_are_one_fault(
    conditions: ConditionLog, caplog: pytest.LogCaptureFixture
) -> None:
    for tenth in range(100):
        conditions.failed("vllm-1", "scrape_failed", ("refused", "status 500")[tenth % 2], 1.0 + tenth / 10)
    assert caplog.messages == ["scrape_failed name=vllm-1 error=refused"]


def test_conditions_of_what_has_left_are_forgotten(
    conditions: ConditionLog, caplog: pytest.LogCaptureFixture
) -> None:
    conditions.failed("vllm-1", "scrape_failed", "refused", 1.0)
    conditions.keep_only({"vllm-2"})
    conditions.holds("vllm-1", "scrape_recovered")
    assert len(caplog.messages) == 1


def test_the_end_of_a_fault_is_logged_once(
    conditions: ConditionLog, caplog: pytest.LogCaptureFixture
) -> None:
    conditions.holds("vllm-1", "scrape_recovered")
    assert caplog.messages == [], "it has never failed"
    conditions.failed("vllm-1", "scrape_failed", "refused", 1.0)
    conditions.holds("vllm-1", "scrape_recovered")
    conditions.holds("vllm-1", "scrape_recovered")
    assert caplog.messages[1:] == ["scrape_recovered name=vllm-1"]
    assert caplog.records[-1].levelno == logging.INFO


def test_a_fault_that_comes_back_is_logged_at_once(
    conditions: ConditionLog, caplog: pytest.LogCaptureFixture
) -> None:
    conditions.failed("vllm-1", "scrape_failed", "refused", 1.0)
    conditions.holds("vllm-1", "scrape_recovered")
    conditions.failed("vllm-1", "scrape_failed", "refused", 1.1)
    assert len(caplog.messages) == 3


def test_conditions_do_not_hide_each_other(
    conditions: ConditionLog, caplog: pytest.LogCaptureFixture
) -> None:
    conditions.failed("vllm-1", "scrape_failed", "refused", 1.0)
    conditions.failed("vllm-2", "scrape_failed", "refused", 1.0)
    conditions.holds("vllm-2", "scrape_recovered")
    conditions.failed("vllm-1", "scrape_failed", "refused", 2.0)
    assert caplog.messages == [
        "scrape_failed name=vllm-1 error=refused",
        "scrape_failed name=vllm-2 error=refused",
        "scrape_recovered name=vllm-2",
    ]
