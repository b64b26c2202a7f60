"""Those of one priority in a line: tenants in turn, each with its own in the order of their arrival."""

from collections import OrderedDict

from extproc.routing.queue.waiter import Waiter

# OrderedDicts, because a dict would walk over all that have left before its first one.
Waiters = OrderedDict[Waiter, None]
Tenants = OrderedDict[str, None]


class PriorityLevel:
    """Every operation takes the same time, or nearly so, however many wait and for however many tenants."""

    def __init__(self) -> None:
        self._turns: OrderedDict[str, Waiters] = OrderedDict()
        self._by_size: dict[int, Tenants] = {}

    def __len__(self) -> int:
        """How many tenants there are."""
        return len(self._turns)

    def join(self, waiter: Waiter) -> None:
        """One more; a tenant that had none comes last in the round."""
        tenant = waiter.request.tenant
        waiters = self._turns.setdefault(tenant, OrderedDict())
        waiters[waiter] = None
        self._resize(tenant, len(waiters) - 1, len(waiters))

    def leave(self, waiter: Waiter) -> None:
        """One less; the order of the others stays as it is."""
        tenant = waiter.request.tenant
        waiters = self._turns[tenant]
        del waiters[waiter]
        self._resize(tenant, len(waiters) + 1, len(waiters))
        if not waiters:
            del self._turns[tenant]

    def first(self) -> Waiter:
        """The oldest of the tenant whose turn it is."""
        return next(iter(next(iter(self._turns.values()))))

    def end_turn(self, tenant: str) -> None:
        """The tenant goes to the end of the round."""
        self._turns.move_to_end(tenant)

    def newest_of_the_most(self) -> Waiter:
        """The newest of the tenant that has the most; of several such the one who got there last."""
        tenant = next(reversed(self._by_size[max(self._by_size)]))
        return next(reversed(self._turns[tenant]))

    def _resize(self, tenant: str, old: int, new: int) -> None:
        if old:
            del self._by_size[old][tenant]
            if not self._by_size[old]:
                del self._by_size[old]
        if new:
            self._by_size.setdefault(new, OrderedDict())[tenant] = None
