"""A request that waits in the queue."""

from collections.abc import Callable

from extproc.exchange.messages import Phase
from extproc.exchange.placement import HeldLease, Placement
from extproc.request.request import Request


class Waiter(HeldLease):
    """A request, when it arrived, and until when it may wait; `gave_up` follows a client that leaves.

    `priority` is within the configured bounds; `number` grows with every arrival.
    """

    __slots__ = ("_gave_up", "deadline_s", "number", "phase", "priority", "request", "since_s")

    def __init__(
        self,
        request: Request,
        phase: Phase,
        priority: int,
        number: int,
        since_s: float,
        deadline_s: float,
        gave_up: "Callable[[Waiter, float], None]",
    ) -> None:
        super().__init__()
        self.request = request
        self.phase = phase
        self.priority = priority
        self.number = number
        self.since_s = since_s
        self.deadline_s = deadline_s
        self._gave_up = gave_up

    def settle(self, placement: Placement) -> None:
        """Answer the request, which waits no more."""
        if self.respond is not None:
            self.respond(placement)

    def _release(self, now_s: float) -> None:
        self._gave_up(self, now_s)
