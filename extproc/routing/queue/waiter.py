"""A request that waits for a place."""

from extproc.exchange.messages import Phase
from extproc.exchange.placement import Ticket
from extproc.request.request import Request


class Waiter(Ticket):
    """Since when it waits, until when it may, and for whom.

    `priority` is within the configured bounds; `number` grows with every arrival.
    """

    __slots__ = ("deadline_s", "number", "phase", "priority", "request", "since_s")

    def __init__(
        self, request: Request, phase: Phase, priority: int, number: int, since_s: float, deadline_s: float
    ) -> None:
        super().__init__()
        self.request = request
        self.phase = phase
        self.priority = priority
        self.number = number
        self.since_s = since_s
        self.deadline_s = deadline_s
