from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.held_requests import request

from extproc.exchange.messages import Phase
from extproc.routing.queue.model_queue import ModelQueue
from extproc.routing.queue.waiter import Waiter

CAPACITY = 6
TENANTS = ("a", "b", "c")


def waiter(number: int, priority: int = 0, tenant: str = "") -> Waiter:
    asked = request(priority=priority, tenant=tenant)
    return Waiter(asked, Phase.REQUEST_BODY, priority, number, float(number), number + 10.0)


def let_in(line: ModelQueue) -> Waiter:
    first = line.first()
    line.end_turn(first)
    line.leave(first)
    return first


def numbers(line: ModelQueue) -> list[int]:
    """Everybody, in the order in which they are let in; the line is empty then."""
    return [let_in(line).number for _ in range(len(line))]


def lined_up(*waiters: Waiter, capacity: int = 100) -> ModelQueue:
    line = ModelQueue(capacity)
    for one in waiters:
        assert line.join(one) is None
    return line


def test_first_come_first_served() -> None:
    assert numbers(lined_up(*(waiter(n) for n in range(5)))) == [0, 1, 2, 3, 4]


def test_the_highest_priority_goes_first() -> None:
    line = lined_up(waiter(0, -1), waiter(1, 0), waiter(2, 3), waiter(3, 0), waiter(4, 3))
    assert numbers(line) == [2, 4, 1, 3, 0]


def test_tenants_take_turns() -> None:
    line = lined_up(*(waiter(n, tenant="a") for n in range(4)), waiter(4, tenant="b"), waiter(5, tenant="b"))
    assert numbers(line) == [0, 4, 1, 5, 2, 3]


def test_who_comes_back_waits_for_the_end_of_the_round() -> None:
    line = lined_up(*(waiter(number, tenant=tenant) for number, tenant in enumerate("abbc")))
    order = []
    for number in range(10, 14):  # a always has one request, which it sends anew as soon as it is let in
        order.append(let_in(line).request.tenant)
        if order[-1] == "a":
            line.join(waiter(number, tenant="a"))
    assert order == ["a", "b", "c", "a"]


def test_a_full_line_refuses_the_newest() -> None:
    line = lined_up(*(waiter(n) for n in range(3)), capacity=3)
    newcomer = waiter(3)
    assert line.join(newcomer) is newcomer
    assert numbers(line) == [0, 1, 2]


def test_the_newest_of_the_lowest_priority_makes_room() -> None:
    line = lined_up(waiter(0, 1), waiter(1, -2), waiter(2, -2), waiter(3, 0), capacity=4)
    shed = line.join(waiter(4, 0))
    assert shed is not None
    assert shed.number == 2
    assert numbers(line) == [0, 3, 4, 1]


def test_a_lower_priority_than_all_others_pushes_nobody_out() -> None:
    line = lined_up(waiter(0), waiter(1), capacity=2)
    newcomer = waiter(2, -1)
    assert line.join(newcomer) is newcomer


def test_who_fills_the_line_makes_room_for_others() -> None:
    line = lined_up(*(waiter(n, tenant="greedy") for n in range(4)), capacity=4)
    shed = [line.join(waiter(n, tenant="modest")) for n in range(4, 7)]
    assert [one.number if one else None for one in shed] == [3, 2, 6], "up to equal shares, and no further"
    assert numbers(line) == [0, 4, 1, 5]


@given(st.lists(st.integers(1, 30), min_size=2, max_size=6))
def test_while_tenants_wait_they_are_served_alike(backlogs: list[int]) -> None:
    tenants = [(str(tenant), backlog) for tenant, backlog in enumerate(backlogs)]
    everybody = [tenant for tenant, backlog in tenants for _ in range(backlog)]
    line = lined_up(
        *(waiter(number, tenant=tenant) for number, tenant in enumerate(everybody)), capacity=1000
    )
    served: Counter[str] = Counter()
    while line:
        served[let_in(line).request.tenant] += 1
        waiting = [served[tenant] for tenant, backlog in tenants if served[tenant] < backlog]
        assert not waiting or max(served.values()) - min(waiting) <= 1


class AnyLine(RuleBasedStateMachine):
    """Beside the line everything that is in it, as a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.line = ModelQueue(CAPACITY)
        self.waiting: list[Waiter] = []
        self.number = 0

    @rule(priority=st.integers(-1, 1), tenant=st.sampled_from(TENANTS))
    def join(self, priority: int, tenant: str) -> None:
        self.number += 1
        newcomer = waiter(self.number, priority, tenant)
        shed = self.line.join(newcomer)
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
        first = let_in(self.line)
        assert first.priority == max(one.priority for one in self.waiting)
        peers = [
            one.number
            for one in self.waiting
            if (one.priority, one.request.tenant) == (first.priority, first.request.tenant)
        ]
        assert first.number == min(peers), "it has been waiting longest among its peers"
        self.waiting.remove(first)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.waiting))
        self.line.leave(gone)
        self.waiting.remove(gone)

    @invariant()
    def nobody_is_lost(self) -> None:
        assert len(self.line) == len(self.waiting) <= CAPACITY
        if self.waiting:
            assert self.line.first() in self.waiting

    def teardown(self) -> None:
        assert sorted(numbers(self.line)) == sorted(one.number for one in self.waiting)


TestAnyLine = AnyLine.TestCase
