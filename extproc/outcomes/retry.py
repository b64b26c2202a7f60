"""What Envoy says of a second attempt while the request goes on: where it was sent, and how it ended there.

The router's own access log has one entry when a second attempt has a connection, and one at its end;
envoy.yaml gives both the tags below. The entry of the whole exchange then blames nobody.
"""

from enum import StrEnum

import msgspec

from extproc.outcomes.log_entry import LogEntry
from extproc.outcomes.outcome import CONNECT_FLAGS, is_backend_failure

STAGE_TAG = "retry_stage"
FIRST_TAG = "retry_first"
SECOND_TAG = "retry_second"


class RetryStage(StrEnum):
    """How far the second attempt is; the values are Envoy's types of access-log entries."""

    SENT = "UpstreamPoolReady"
    ENDED = "UpstreamEnd"


_STAGES = {stage.value: stage for stage in RetryStage}


class Retry(msgspec.Struct, frozen=True):
    """A second attempt: `first` did not answer, `second` (empty where there was none) was tried instead.

    `was_sent` is False where `second` could not be reached either; `is_failure` is about `second`, and None
    where nothing is known of it.
    """

    first: str
    second: str
    stage: RetryStage
    was_sent: bool
    is_failure: bool | None


def read_retry(entry: LogEntry) -> Retry | None:
    """Return the second attempt that an entry is about; None where it is about a whole exchange."""
    stage = _STAGES.get(entry.tags.get(STAGE_TAG, ""))
    if stage is None:
        return None
    return Retry(
        first=entry.tags.get(FIRST_TAG, ""),
        second=entry.tags.get(SECOND_TAG, ""),
        stage=stage,
        was_sent=not entry.response_flags & CONNECT_FLAGS,
        is_failure=is_backend_failure(entry) if stage is RetryStage.ENDED else None,
    )
