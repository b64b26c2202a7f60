"""The requests that wait for one model, in the order in which they are let in.

The highest priority goes first; within it tenants take turns; a tenant's own are served first come, first
served. Taking turns is deficit round robin (Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit
Round Robin", 1995) where each request costs one quantum: what is handed out is a place in flight, however
long the request, so that no deficit is left to be carried over. A tenant that comes back starts at the end
of the round: to come and go gains nothing, and nothing has to be kept of tenants that do not wait.

A queue that is full loses the newest request of the lowest priority, and there that of the tenant with the
most: otherwise a tenant that fills the queue would keep all others out of it. (McKenney, "Stochastic Fairness
Queueing", 1990, calls this buffer stealing.)
"""

from extproc.routing.queue.priority_level import PriorityLevel
from extproc.routing.queue.waiter import Waiter


class ModelQueue:
    """At most `capacity` waiters."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._levels: dict[int, PriorityLevel] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def join(self, waiter: Waiter) -> Waiter | None:
        """Take in a waiter; return the one that had to leave for it, which may be itself."""
        level = self._levels.get(waiter.priority)
        if level is None:
            level = self._levels[waiter.priority] = PriorityLevel()
        level.join(waiter)
        self._length += 1
        if self._length <= self._capacity:
            return None
        shed = self._levels[min(self._levels)].newest_of_the_most()
        self.leave(shed)
        return shed

    def first(self) -> Waiter:
        """Return the waiter whose turn it is; the queue must not be empty."""
        return self._levels[max(self._levels)].first()

    def end_turn(self, waiter: Waiter) -> None:
        """End the turn of the tenant whose waiter is let in."""
        self._levels[waiter.priority].end_turn(waiter.request.tenant)

    def leave(self, waiter: Waiter) -> None:
        """Take out a waiter, wherever in the queue it is."""
        level = self._levels[waiter.priority]
        level.leave(waiter)
        self._length -= 1
        if not level:
            del self._levels[waiter.priority]
