import pytest

from extproc.outcomes.log_entry import LogEntry
from extproc.outcomes.retry import Retry, RetryStage, read_retry


def entry(stage: str, *flags: str, status: int = 0, second: str = "vllm-2") -> LogEntry:
    tags = {"retry_stage": stage, "retry_first": "vllm-1", "retry_second": second}
    return LogEntry(0.0, None, status, 1, frozenset(flags), 0, {}, {k: v for k, v in tags.items() if v})


def test_an_exchange_is_no_second_attempt() -> None:
    assert read_retry(LogEntry(0.0, 1.0, 200, 2, frozenset(), 0, {}, {"ttft_us": "1"})) is None
    assert read_retry(entry("DownstreamEnd")) is None


def test_a_second_attempt_that_was_sent_says_nothing_of_its_backend_yet() -> None:
    sent = read_retry(entry("UpstreamPoolReady"))
    assert sent == Retry("vllm-1", "vllm-2", RetryStage.SENT, was_sent=True, is_failure=None)


@pytest.mark.parametrize(
    ("flags", "status", "was_sent", "is_failure"),
    [
        ((), 200, True, False),
        ((), 400, True, False),
        ((), 500, True, True),
        (("UC",), 0, True, True),
        (("UF",), 0, False, True),
        (("DC",), 0, True, None),
    ],
)
def test_the_end_of_a_second_attempt_tells_how_its_backend_did(
    flags: tuple[str, ...], status: int, was_sent: bool, is_failure: bool | None
) -> None:
    ended = read_retry(entry("UpstreamEnd", *flags, status=status))
    assert ended == Retry("vllm-1", "vllm-2", RetryStage.ENDED, was_sent, is_failure)


def test_a_second_attempt_for_which_there_was_no_backend_was_not_sent() -> None:
    ended = read_retry(entry("UpstreamEnd", "UH", second=""))
    assert ended is not None
    assert (ended.second, ended.was_sent) == ("", False)
