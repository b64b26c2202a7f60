"""The stages `guard` and `admission`: when a backend is saturated, and what happens when all of them are."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from extproc.config.fields import Checked, HeaderName, ModelNames, Stage
from extproc.fleet.adaptive_limit import AdaptiveRule
from extproc.fleet.bounds import Count, Seconds
from extproc.fleet.fleet_rules import RESUME_SHARE, SaturationRule, WaitingRule
from extproc.routing.queue.queue_rules import QueueRules
from extproc.routing.refusal import AdmissionRules


def _checked_limit(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Report one fault, where a union has one for each of its members."""
    try:
        return check(value)
    except ValidationError as error:
        raise ValueError("expected a whole number, at least 1, or auto") from error


Limit = Annotated[Count | Literal["auto"], WrapValidator(_checked_limit)]


class GuardConfig(Stage):
    """A limit of requests, given or found, and a limit of the wait."""

    max_active: Limit = "auto"
    auto: Checked[AdaptiveRule] = AdaptiveRule()
    resume_active: Annotated[int, Ge(0)] | None = None
    max_predicted_ttft_s: Seconds = WaitingRule().burst_s

    def model_post_init(self, _: object) -> None:
        """Raise ValueError where the backend would come back before it is out."""
        if self.resume_active is None:
            return
        if self.max_active == "auto":
            raise ValueError("resume_active must be null with max_active: auto")
        if self.resume_active >= self.max_active:
            raise ValueError("resume_active must be smaller than max_active")

    def saturation(self, *, is_queueing: bool) -> SaturationRule:
        """Return when a backend is full, and when it comes back.

        Where requests wait in the router's queue a backend is filled up at once, and no further.
        """
        share = 1.0 if is_queueing else RESUME_SHARE
        if self.max_active == "auto":
            return SaturationRule(self.auto.start, None, self.auto, share, is_only_places=not is_queueing)
        return SaturationRule(self.max_active, None if is_queueing else self.resume_active, None, share)

    def waiting(self) -> WaitingRule:
        """Return how long a request may wait in a server."""
        return WaitingRule(self.max_predicted_ttft_s)


@dataclass(frozen=True, slots=True)
class QueueConfig(QueueRules):
    """Which requests may wait in mode `queue`, for how long, and which of them take turns."""

    tenant_header: HeaderName | None = None
    models: ModelNames | None = None


@dataclass(frozen=True, slots=True)
class AdmissionConfig(AdmissionRules):
    """Refuse at once, or hold for a while."""

    mode: Literal["reject", "queue"] = "reject"
    queue: Checked[QueueConfig] = QueueConfig()
