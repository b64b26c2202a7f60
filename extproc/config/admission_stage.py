"""The stage `admission`: what happens to a request when no candidate is left."""

from dataclasses import dataclass
from typing import Literal

from extproc.config.fields import HeaderName
from extproc.config.stage import Checked
from extproc.routing.queue.queue_rules import QueueRules
from extproc.routing.refusal import AdmissionRules


@dataclass(frozen=True, slots=True)
class QueueConfig(QueueRules):
    """Which requests may wait in mode `queue`, for how long, and which of them take turns."""

    tenant_header: HeaderName | None = None


@dataclass(frozen=True, slots=True)
class AdmissionConfig(AdmissionRules):
    """Refuse at once, or hold for a while."""

    mode: Literal["reject", "queue"] = "reject"
    queue: Checked[QueueConfig] = QueueConfig()
