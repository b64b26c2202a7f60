"""The waiters of one priority in a queue: tenants take turns, each serves its own in order of arrival."""

from collections import OrderedDict

from extproc.routing.queue.waiter import Waiter

# OrderedDicts, because a dict would walk over all that have left before its first one.
Waiters = OrderedDict[Waiter, None]
Tenants = OrderedDict[str, None]


class PriorityLevel:
    """Every operation takes nearly the same time, however many waiters and tenants there are."""

    def __init__(self) -> None:
        self._turns: OrderedDict[str, Waiters] = OrderedDict()
        self._by_size: dict[int, Tenants] = {}

    def __len__(self) -> int:
        """Return the number of tenants."""
        return len(self._turns)

    def join(self, waiter: Waiter) -> None:
        """Take in a waiter; a tenant that had none comes last in the round."""
        tenant = waiter.request.tenant
        waiters = self._turns.setdefault(tenant, OrderedDict())
        waiters[waiter] = None
        self._resize(tenant, len(waiters) - 1, len(waiters))

    def leave(self, waiter: Waiter) -> None:
        """Take out a waiter; the order of the others stays as it is."""
        tenant = waiter.request.tenant
        waiters = self._turns[tenant]
        del waiters[waiter]
        self._resize(tenant, len(waiters) + 1, len(waiters))
        if not waiters:
            del self._turns[tenant]

    def first(self) -> Waiter:
        """Return the oldest waiter of the tenant whose turn it is."""
        return next(iter(next(iter(self._turns.values()))))

    def end_turn(self, tenant: str) -> None:
        """Move the tenant to the end of the round."""
        self._turns.move_to_end(tenant)

    def newest_of_the_most(self) -> Waiter:
        """Return the newest waiter of the tenant that has the most; of several, the last to get there."""
        tenant = next(reversed(self._by_size[max(self._by_size)]))
        return next(reversed(self._turns[tenant]))

    def _resize(self, tenant: str, old: int, new: int) -> None:
        if old:
            del self._by_size[old][tenant]
            if not self._by_size[old]:
                del self._by_size[old]
        if new:
            self._by_size.setdefault(new, OrderedDict())[tenant] = None
