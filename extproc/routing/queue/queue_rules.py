"""How many requests may wait, for how long, and what their priorities may be."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le

from extproc.fleet.bounds import Count
from extproc.request.request import MAX_PRIORITY

HOLD_MARGIN_S = 5.0
"""Guessed: Envoy is asked for so much more patience than a request may wait. A request that is not answered
within it, because the sidecar stands still, goes to Envoy's own pool."""

MAX_HELD_S = 600.0
"""The bound of envoy.yaml (`max_message_timeout`), less HOLD_MARGIN_S."""

SERVER_SHARE = 0.2
"""Guessed: the share of a limit that is left for the server's own queue. A request that is let in with less
needs an idle server, and servers would idle between two such requests."""

Priority = Annotated[int, Ge(-MAX_PRIORITY), Le(MAX_PRIORITY)]


@dataclass(frozen=True, slots=True)
class QueueRules:
    """How many may wait for each model, for how long, and what priorities they may have.

    A request for a model that has no server waits for `max_start_wait_s`, if the model was served before or
    is one of `models`.
    """

    max_waiting: Annotated[Count, Le(100_000)] = 1000  # guessed: ten times a backend's max_active
    max_wait_s: Annotated[float, Gt(0), Le(MAX_HELD_S)] = 10.0  # guessed
    max_start_wait_s: Annotated[float, Ge(0), Le(MAX_HELD_S)] = 300.0  # guessed: a large model is loaded then
    models: tuple[str, ...] | None = None
    min_priority: Priority = 0  # both 0: whatever clients ask for, they are equal
    max_priority: Priority = 0

    def __post_init__(self) -> None:
        if self.min_priority > self.max_priority:
            raise ValueError("min_priority must not be larger than max_priority")

    def place_wait_s(self, limit_s: float) -> float:
        """Return how long a request with this limit of the wait may wait for a place."""
        return min(self.max_wait_s, (1.0 - SERVER_SHARE) * limit_s)

    def both_waits_s(self, limit_s: float) -> float:
        """Return how long it may wait for a server to start, and then for a place there."""
        return min(MAX_HELD_S, self.max_start_wait_s + self.place_wait_s(limit_s))
