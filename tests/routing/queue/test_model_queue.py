from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.build import a_request

from extproc.exchange.messages import Phase
from extproc.routing.queue.model_queue import ModelQueue
from extproc.routing.queue.waiting_requests import Waiter

CAPACITY = 6
TENANTS = ("a", "b", "c")


def waiter(number: int, priority: int = 0, tenant: str = "", limit_s: float = 10.0) -> Waiter:
    asked, since_s = a_request(priority=priority, tenant=tenant), float(number)
    return Waiter(asked, Phase.REQUEST_BODY, priority, number, since_s, since_s + limit_s, lambda *_: None)


def let_in(queue: ModelQueue) -> Waiter:
    first = queue.first()
    queue.end_turn(first)
    queue.leave(first)
    return first


def numbers(queue: ModelQueue) -> list[int]:
    """Let all requests in, and return their numbers in that order; the queue is empty then."""
    return [let_in(queue).number for _ in range(len(queue))]


def queue_of(*waiters: Waiter, capacity: int = 100) -> ModelQueue:
    queue = ModelQueue(capacity)
    for one in waiters:
        assert queue.join(one) is None
    return queue


def test_first_come_first_served() -> None:
    assert numbers(queue_of(*(waiter(n) for n in range(5)))) == [0, 1, 2, 3, 4]


def test_the_highest_priority_goes_first() -> None:
    queue = queue_of(waiter(0, -1), waiter(1, 0), waiter(2, 3), waiter(3, 0), waiter(4, 3))
    assert numbers(queue) == [2, 4, 1, 3, 0]


def test_tenants_take_turns() -> None:
    queue = queue_of(*(waiter(n, tenant="a") for n in range(4)), waiter(4, tenant="b"), waiter(5, tenant="b"))
    assert numbers(queue) == [0, 4, 1, 5, 2, 3]


def test_a_tenant_that_comes_back_waits_for_the_end_of_the_round() -> None:
    queue = queue_of(*(waiter(number, tenant=tenant) for number, tenant in enumerate("abbc")))
    order = []
    for number in range(10, 14):  # a always has one request, which it sends anew as soon as it is let in
        order.append(let_in(queue).request.tenant)
        if order[-1] == "a":
            queue.join(waiter(number, tenant="a"))
    assert order == ["a", "b", "c", "a"]


def test_a_full_queue_refuses_the_newest() -> None:
    queue = queue_of(*(waiter(n) for n in range(3)), capacity=3)
    newcomer = waiter(3)
    assert queue.join(newcomer) is newcomer
    assert numbers(queue) == [0, 1, 2]


def test_the_newest_of_the_lowest_priority_makes_room() -> None:
    queue = queue_of(waiter(0, 1), waiter(1, -2), waiter(2, -2), waiter(3, 0), capacity=4)
    shed = queue.join(waiter(4, 0))
    assert shed is not None
    assert shed.number == 2
    assert numbers(queue) == [0, 3, 4, 1]


def test_a_request_of_the_lowest_priority_pushes_no_other_out() -> None:
    queue = queue_of(waiter(0), waiter(1), capacity=2)
    newcomer = waiter(2, -1)
    assert queue.join(newcomer) is newcomer


def test_a_tenant_that_fills_the_queue_makes_room_for_others() -> None:
    queue = queue_of(*(waiter(n, tenant="greedy") for n in range(4)), capacity=4)
    shed = [queue.join(waiter(n, tenant="modest")) for n in range(4, 7)]
    assert [one.number if one else None for one in shed] == [3, 2, 6], "up to equal shares, and no further"
    assert numbers(queue) == [0, 4, 1, 5]


@given(st.lists(st.integers(1, 30), min_size=2, max_size=6))
def test_while_tenants_wait_they_are_served_alike(backlogs: list[int]) -> None:
    tenants = [(str(tenant), backlog) for tenant, backlog in enumerate(backlogs)]
    tenant_of_each = [tenant for tenant, backlog in tenants for _ in range(backlog)]
    queue = queue_of(
        *(waiter(number, tenant=tenant) for number, tenant in enumerate(tenant_of_each)), capacity=1000
    )
    served: Counter[str] = Counter()
    while queue:
        served[let_in(queue).request.tenant] += 1
        waiting = [served[tenant] for tenant, backlog in tenants if served[tenant] < backlog]
        assert not waiting or max(served.values()) - min(waiting) <= 1


class AnyQueue(RuleBasedStateMachine):
    """A queue, and beside it a plain list of all requests in it."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = ModelQueue(CAPACITY)
        self.waiting: list[Waiter] = []
        self.number = 0

    @rule(
        priority=st.integers(-1, 1), tenant=st.sampled_from(TENANTS), limit_s=st.sampled_from([1.0, 2.0, 9.0])
    )
    def join(self, priority: int, tenant: str, limit_s: float) -> None:
        self.number += 1
        newcomer = waiter(self.number, priority, tenant, limit_s)
        shed = self.queue.join(newcomer)
        self.waiting.append(newcomer)
        assert (shed is not None) == (len(self.waiting) > CAPACITY)
        if shed is not None:
            self._assert_least_deserving(shed)
            self.waiting.remove(shed)

    def _assert_least_deserving(self, shed: Waiter) -> None:
        lowest = [one for one in self.waiting if one.priority == min(one.priority for one in self.waiting)]
        sizes = Counter(one.request.tenant for one in lowest)
        own = [one.number for one in lowest if one.request.tenant == shed.request.tenant]
        assert shed in lowest
        assert sizes[shed.request.tenant] == max(sizes.values())
        assert shed.number == max(own)

    @precondition(lambda self: self.waiting)
    @rule()
    def let_in(self) -> None:
        first = let_in(self.queue)
        assert first.priority == max(one.priority for one in self.waiting)
        peers = [
            one.turn
            for one in self.waiting
            if (one.priority, one.request.tenant) == (first.priority, first.request.tenant)
        ]
        assert first.turn == min(peers), "it is due first among its peers"
        self.waiting.remove(first)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.waiting))
        self.queue.leave(gone)
        self.waiting.remove(gone)

    @invariant()
    def no_request_is_lost(self) -> None:
        assert len(self.queue) == len(self.waiting) <= CAPACITY
        if self.waiting:
            assert self.queue.first() in self.waiting

    def teardown(self) -> None:
        assert sorted(numbers(self.queue)) == sorted(one.number for one in self.waiting)


TestAnyQueue = AnyQueue.TestCase
