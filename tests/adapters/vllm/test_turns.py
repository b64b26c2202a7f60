import asyncio
from itertools import pairwise

import pytest

from extproc.adapters.vllm.turns import LoopTurns


async def taken(turns: LoopTurns, number: int, order: list[int]) -> None:
    await turns.next()
    order.append(number)


async def turns_of_the_loop(most: int, is_over: asyncio.Event, seen: list[int], order: list[int]) -> None:
    for _ in range(most):
        if is_over.is_set():
            return
        seen.append(len(order))
        await asyncio.sleep(0)


def test_of_many_tasks_one_goes_on_in_each_turn_in_their_order() -> None:
    async def scenario() -> None:
        turns, order, seen, is_over = LoopTurns(), list[int](), list[int](), asyncio.Event()
        counting = asyncio.create_task(turns_of_the_loop(100, is_over, seen, order))
        await asyncio.gather(*(taken(turns, number, order) for number in range(10)))
        is_over.set()
        await counting
        assert order == list(range(10))
        assert max(after - before for before, after in pairwise(seen)) == 1

    asyncio.run(scenario())


def test_a_task_that_comes_alone_does_not_wait() -> None:
    async def scenario() -> None:
        turns, order = LoopTurns(), list[int]()
        for number in range(3):
            with pytest.raises(StopIteration):
                taken(turns, number, order).send(None)
            await asyncio.sleep(0)

    asyncio.run(scenario())


def test_a_task_that_is_cancelled_holds_up_none_behind_it() -> None:
    async def scenario() -> None:
        turns, order = LoopTurns(), list[int]()
        tasks = [asyncio.create_task(taken(turns, number, order)) for number in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [0, 2, 3]

    asyncio.run(scenario())
