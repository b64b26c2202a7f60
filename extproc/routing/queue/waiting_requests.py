"""A request that waits, and some of them in two orders: that of their deadlines, and that of their arrival.

The earliest deadline is served first (Liu and Layland, "Scheduling Algorithms for Multiprogramming in a
Hard-Real-Time Environment", 1973). Where all may wait equally long, that is the order of arrival. A sorted
list is searched and moved at C speed, and keeps nothing of requests that have gone, as a heap would.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from extproc.exchange.messages import Phase
from extproc.exchange.placement import HeldLease
from extproc.request.request import Request


@dataclass(slots=True, eq=False)
class Waiter(HeldLease):
    """A request that waits, when it arrived, and until when it may; `gave_up` follows a client that leaves.

    `priority` is within the configured bounds; `number` grows with every arrival. While its model
    `is_starting` no server serves that; its wait counts from `counts_from_s`, when there was one.
    """

    request: Request
    phase: Phase
    priority: int
    number: int
    since_s: float
    deadline_s: float
    _gave_up: "Callable[[Waiter, float], None]"
    is_starting: bool = False
    counts_from_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.counts_from_s = self.since_s

    @property
    def turn(self) -> tuple[float, int]:
        """Where it stands in the order of deadlines; no other has the same."""
        return self.deadline_s, self.number

    def _release(self, now_s: float) -> None:
        self._gave_up(self, now_s)


class WaitingRequests:
    """Some requests that wait. They are added in the order of their arrival, and leave in any."""

    __slots__ = ("_by_arrival", "_by_turn", "_turns")

    def __init__(self) -> None:
        # An OrderedDict, because a dict would walk over all that have left before its first one.
        self._by_arrival: OrderedDict[Waiter, None] = OrderedDict()
        self._by_turn: dict[tuple[float, int], Waiter] = {}
        self._turns: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._by_arrival)

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter in self._by_arrival

    def __iter__(self) -> Iterator[Waiter]:
        """Iterate in the order of arrival."""
        return iter(self._by_arrival)

    def add(self, waiter: Waiter) -> None:
        """Take one more, the newest."""
        self._by_arrival[waiter] = None
        self._by_turn[waiter.turn] = waiter
        insort(self._turns, waiter.turn)

    def remove(self, waiter: Waiter) -> None:
        """Drop one, which must be there."""
        del self._by_arrival[waiter]
        del self._by_turn[waiter.turn]
        del self._turns[bisect_left(self._turns, waiter.turn)]

    def put_off(self, waiter: Waiter, deadline_s: float) -> None:
        """Give one that is there another deadline."""
        del self._by_turn[waiter.turn]
        del self._turns[bisect_left(self._turns, waiter.turn)]
        waiter.deadline_s = deadline_s
        self._by_turn[waiter.turn] = waiter
        insort(self._turns, waiter.turn)

    def first(self) -> Waiter:
        """Return the one whose deadline is the earliest; there must be one."""
        return self._by_turn[self._turns[0]]

    def oldest(self) -> Waiter:
        """Return the one that arrived first; there must be one."""
        return next(iter(self._by_arrival))

    def newest(self) -> Waiter:
        """Return the one that arrived last; there must be one."""
        return next(reversed(self._by_arrival))
