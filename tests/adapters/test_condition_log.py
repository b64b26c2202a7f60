import logging

import pytest

from extproc.adapters.condition_log import REPEAT_S, ConditionLog


@pytest.fixture
def conditions(caplog: pytest.LogCaptureFixture) -> ConditionLog:
    caplog.set_level(logging.INFO)
    return ConditionLog(logging.getLogger("test"), "scrape_failed", "scrape_recovered")


def test_a_lasting_fault_is_logged_once_and_again_every_thirty_seconds(
    conditions: ConditionLog, caplog: pytest.LogCaptureFixture
) -> None:
    for tenth in range(10 * int(2 * REPEAT_S) + 1):
        conditions.failed("refused", 1000.0 + tenth / 10, name="vllm-1")
    assert caplog.messages == ["scrape_failed name=vllm-1 error=refused"] * 3
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_errors_that_alternate_are_one_fault(
    conditions: ConditionLog, caplog: pytest.LogCaptureFixture
) -> None:
    for tenth in range(100):
        conditions.failed(("refused", "status 500")[tenth % 2], 1.0 + tenth / 10, name="vllm-1")
    assert caplog.messages == ["scrape_failed name=vllm-1 error=refused"]


def test_conditions_of_what_has_left_are_forgotten(
    conditions: ConditionLog, caplog: pytest.LogCaptureFixture
) -> None:
    conditions.failed("refused", 1.0, name="vllm-1")
    conditions.keep_only({"vllm-2"})
    conditions.holds(name="vllm-1")
    assert len(caplog.messages) == 1


def test_the_end_of_a_fault_is_logged_once(
    conditions: ConditionLog, caplog: pytest.LogCaptureFixture
) -> None:
    conditions.holds(name="vllm-1")
    assert caplog.messages == [], "it has never failed"
    conditions.failed("refused", 1.0, name="vllm-1")
    conditions.holds(name="vllm-1")
    conditions.holds(name="vllm-1")
    assert caplog.messages[1:] == ["scrape_recovered name=vllm-1"]
    assert caplog.records[-1].levelno == logging.INFO


def test_a_fault_that_comes_back_is_logged_at_once(
    conditions: ConditionLog, caplog: pytest.LogCaptureFixture
) -> None:
    conditions.failed("refused", 1.0, name="vllm-1")
    conditions.holds(name="vllm-1")
    conditions.failed("refused", 1.1, name="vllm-1")
    assert len(caplog.messages) == 3


def test_conditions_do_not_hide_each_other(
    conditions: ConditionLog, caplog: pytest.LogCaptureFixture
) -> None:
    conditions.failed("refused", 1.0, name="vllm-1")
    conditions.failed("refused", 1.0, name="vllm-2")
    conditions.holds(name="vllm-2")
    conditions.failed("refused", 2.0, name="vllm-1")
    assert caplog.messages == [
        "scrape_failed name=vllm-1 error=refused",
        "scrape_failed name=vllm-2 error=refused",
        "scrape_recovered name=vllm-2",
    ]


def test_condition_without_a_subject_is_logged_without_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    writing = ConditionLog(logging.getLogger("test"), "clusters_not_written", "clusters_written")
    writing.failed("disk full", 1.0)
    writing.failed("disk full", 2.0)
    writing.holds()
    assert caplog.messages == ["clusters_not_written error=disk full", "clusters_written"]


def test_condition_logs_the_fields_that_it_is_given(
    conditions: ConditionLog, caplog: pytest.LogCaptureFixture
) -> None:
    conditions.failed("no answer", 1.0, host="vllm.example", port="8000")
    conditions.holds(host="vllm.example", port="8000")
    assert caplog.messages == [
        "scrape_failed host=vllm.example port=8000 error=no answer",
        "scrape_recovered host=vllm.example port=8000",
    ]


def test_fault_whose_end_has_no_event_is_logged_at_once_when_it_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    protocol = ConditionLog(logging.getLogger("test"), "grpc_protocol_error")
    protocol.failed("not gRPC", 1.0)
    protocol.holds()
    protocol.failed("not gRPC", 2.0)
    assert caplog.messages == ["grpc_protocol_error error=not gRPC"] * 2
