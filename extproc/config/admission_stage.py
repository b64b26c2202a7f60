"""The stage `admission`: what happens to a request when no candidate is left."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from extproc.config.fields import Count, HeaderName, Seconds, Stage, Whole
from extproc.request.read_request import MAX_PRIORITY

Priority = Annotated[Whole, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)]


class QueueConfig(Stage):
    """Who may wait, and for how long, in mode `queue`."""

    max_waiting: Annotated[Count, Field(le=100_000)] = 1000  # guessed: ten times a backend's max_active
    max_wait_s: Annotated[Seconds, Field(le=600)] = 10.0  # guessed; what envoy.yaml allows is 600
    min_priority: Priority = 0  # both 0: whatever clients ask for, they are equal
    max_priority: Priority = 0
    tenant_header: HeaderName | None = None

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.min_priority > self.max_priority:
            raise ValueError("min_priority must not be larger than max_priority")
        return self


class AdmissionConfig(Stage):
    """Refuse at once, or hold for a while."""

    mode: Literal["reject", "queue"] = "reject"
    max_retry_after_s: Count = 60  # guessed
    queue: QueueConfig = QueueConfig()
