"""A slow backend whose places are taken, and requests that wait at the router for one."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from support.client_load import Answer, chat
from support.process_stack import LocalStack

SLOW, FAST = 0.2, 200.0
LONG = chat(max_tokens=600)
"""Some minutes on a slow server: it has its place until the test has seen what it wants to, and is fast."""


def prepare(stack: LocalStack, max_active: int = 1, **queue: Any) -> None:
    """A backend that takes `max_active` requests, is slow, and a sidecar that holds the others."""
    stack.start_sim("vllm-1", "--max-num-seqs", str(max_active), "--speed", str(SLOW))
    stack.stages["guard"] = {"max_active": max_active, "max_predicted_ttft_s": 60.0}
    stack.stages["admission"] = {"mode": "queue", "queue": queue}


async def until_waiting(stack: LocalStack, count: int) -> Mapping[str, Any]:
    return await stack.until(lambda state: state["queue"]["waiting"] == count)


async def hold(stack: LocalStack, number: int, **options: Any) -> asyncio.Task[Answer]:
    """One more request that waits, `number` in all."""
    task = asyncio.create_task(stack.ask(chat(max_tokens=2), **options))
    await until_waiting(stack, number)
    return task


async def occupy(stack: LocalStack, places: int = 1) -> asyncio.Future[list[Answer]]:
    """Requests that take all places, for as long as the server is slow."""
    await stack.change_speed(SLOW)
    asked = asyncio.gather(*(stack.ask(LONG) for _ in range(places)))
    await stack.until(lambda state: state["backends"][0]["own"] == places)
    return asked


async def order_of_letting_in(stack: LocalStack, headers: Sequence[Mapping[str, str]]) -> list[int]:
    """One request after another that waits, with these headers: their numbers, as they are answered."""
    first = await occupy(stack)
    done: list[int] = []
    waiting = []
    for number, each in enumerate(headers, start=1):
        task = await hold(stack, number, headers=each)
        task.add_done_callback(lambda _, number=number: done.append(number))
        waiting.append(task)
    await stack.change_speed(FAST)
    answers = [*await first, *await asyncio.gather(*waiting)]
    assert all(answer.is_complete for answer in answers)
    return done
