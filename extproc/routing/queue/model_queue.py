"""The requests that wait for one model, in the order in which they are let in.

The highest priority goes first; within it tenants take turns; of a tenant's own the earliest deadline goes
first, which is the order of arrival where all may wait equally long. Taking turns is deficit round robin
(Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round Robin", 1995) where each request costs
one quantum: what is handed out is a place in flight, however long the request, so that no deficit is left to
be carried over. A tenant that comes back starts at the end of the round: to come and go gains nothing, and
nothing has to be kept of tenants that do not wait.

A queue that is full loses the newest request of the lowest priority, and there that of the tenant with the
most: otherwise a tenant that fills the queue would keep all others out of it. (McKenney, "Stochastic Fairness
Queueing", 1990, calls this buffer stealing.) A deadline counts for nothing here: a client that asks for a
short one would push out those that wait already.
"""

from collections import OrderedDict

from extproc.routing.queue.waiting_requests import Waiter, WaitingRequests

Tenants = OrderedDict[str, None]


class PriorityLevel:
    """The waiters of one priority: tenants in turn, each with its own by their deadlines.

    Every operation takes the same time, or nearly so, however many wait and for however many tenants.
    """

    def __init__(self) -> None:
        self._turns: OrderedDict[str, WaitingRequests] = OrderedDict()
        self._by_size: dict[int, Tenants] = {}

    def __len__(self) -> int:
        """Return the number of tenants."""
        return len(self._turns)

    def join(self, waiter: Waiter) -> None:
        """Take one more; a tenant that had none comes last in the round."""
        tenant = waiter.request.tenant
        waiters = self._turns.setdefault(tenant, WaitingRequests())
        waiters.add(waiter)
        self._resize(tenant, len(waiters) - 1, len(waiters))

    def leave(self, waiter: Waiter) -> None:
        """Drop one; the order of the others stays as it is."""
        tenant = waiter.request.tenant
        waiters = self._turns[tenant]
        waiters.remove(waiter)
        self._resize(tenant, len(waiters) + 1, len(waiters))
        if not waiters:
            del self._turns[tenant]

    def first(self) -> Waiter:
        """Return the one with the earliest deadline of the tenant whose turn it is."""
        return next(iter(self._turns.values())).first()

    def end_turn(self, tenant: str) -> None:
        """Send the tenant to the end of the round."""
        self._turns.move_to_end(tenant)

    def newest_of_the_most(self) -> Waiter:
        """Return the newest of the tenant that has the most; of several such, the one that got there last."""
        tenant = next(reversed(self._by_size[max(self._by_size)]))
        return self._turns[tenant].newest()

    def _resize(self, tenant: str, old: int, new: int) -> None:
        if old:
            del self._by_size[old][tenant]
            if not self._by_size[old]:
                del self._by_size[old]
        if new:
            self._by_size.setdefault(new, OrderedDict())[tenant] = None


class ModelQueue:
    """At most `capacity` waiters."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._levels: dict[int, PriorityLevel] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def join(self, waiter: Waiter) -> Waiter | None:
        """Take one more; returns the waiter that has had to leave for that, which may be itself."""
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
        """Return the waiter whose turn it is; there must be one."""
        return self._levels[max(self._levels)].first()

    def end_turn(self, waiter: Waiter) -> None:
        """End the turn of the tenant whose first request is let in."""
        self._levels[waiter.priority].end_turn(waiter.request.tenant)

    def leave(self, waiter: Waiter) -> None:
        """Drop a request that does not wait any more."""
        level = self._levels[waiter.priority]
        level.leave(waiter)
        self._length -= 1
        if not level:
            del self._levels[waiter.priority]
