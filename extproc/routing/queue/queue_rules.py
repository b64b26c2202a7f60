"""How many requests may wait at the router, and for how long."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le

from extproc.fleet.bounds import Count
from extproc.request.read_request import MAX_PRIORITY

Priority = Annotated[int, Ge(-MAX_PRIORITY), Le(MAX_PRIORITY)]


@dataclass(frozen=True, slots=True)
class QueueRules:
    """How many may wait for each model, for how long, and what priorities they may have."""

    max_waiting: Annotated[Count, Le(100_000)] = 1000  # guessed: ten times a backend's max_active
    max_wait_s: Annotated[float, Gt(0), Le(600)] = 10.0  # guessed; what envoy.yaml allows is 600
    min_priority: Priority = 0  # both 0: whatever clients ask for, they are equal
    max_priority: Priority = 0

    def __post_init__(self) -> None:
        if self.min_priority > self.max_priority:
            raise ValueError("min_priority must not be larger than max_priority")
