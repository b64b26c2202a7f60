import asyncio
from functools import partial
from itertools import pairwise

from support.in_loop import in_loop
from support.patience import until

from extproc.adapters.envoy import own_turns
from extproc.adapters.envoy.own_turns import OwnTurns


@in_loop
async def test_each_piece_of_work_has_a_turn_of_its_own_and_urgent_ones_come_first() -> None:
    turns, done = OwnTurns(lambda: False), list[str]()
    for number in range(4):
        turns.add(partial(done.append, f"other {number}"), urgent=False)
        turns.add(partial(done.append, f"urgent {number}"), urgent=True)
    seen = [0]
    while len(done) < 8:
        await asyncio.sleep(0)
        seen.append(len(done))
    assert max(after - before for before, after in pairwise(seen)) == 1
    assert done == [f"{kind} {number}" for kind in ("urgent", "other") for number in range(4)]


@in_loop
async def test_of_too_much_work_the_oldest_piece_does_not_wait() -> None:
    turns, done = OwnTurns(lambda: False), list[int]()
    for number in range(own_turns.MOST_WAITING + 2):
        turns.add(partial(done.append, number), urgent=True)
    assert done == [0, 1]
    turns.finish()
    assert done == list(range(own_turns.MOST_WAITING + 2))


@in_loop
async def test_a_fault_in_one_piece_of_work_holds_up_no_other() -> None:
    turns, done, faults = OwnTurns(lambda: False), list[str](), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
    turns.add(partial(int, "no number"), urgent=True)
    turns.add(partial(done.append, "next"), urgent=True)
    await until(lambda: done)
    assert [type(fault) for fault in faults] == [ValueError]


@in_loop
async def test_work_waits_for_what_has_been_read_but_not_for_ever() -> None:
    behind, done = [True, True, False], list[int]()
    turns = OwnTurns(lambda: behind.pop(0))
    turns.add(partial(done.append, 1), urgent=True)
    await until(lambda: done)
    assert not behind
    endless = OwnTurns(lambda: True)
    endless.add(partial(done.append, 2), urgent=True)
    await until(lambda: done == [1, 2])
