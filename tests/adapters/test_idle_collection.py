import asyncio
import gc
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress

import pytest

from extproc.adapters.idle_collection import PAUSE_S, collect_when_idle

OBJECTS = 2000


class Knot:
    """An object that refers to itself: only the collector finds it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def no_passes_of_its_own() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def collecting_beside(work: object) -> None:
    collection = asyncio.create_task(collect_when_idle())
    try:
        await work  # type: ignore[misc]
    finally:
        collection.cancel()
        with suppress(asyncio.CancelledError):
            await collection


def test_an_idle_loop_collects_garbage() -> None:
    knots = [Knot() for _ in range(OBJECTS)]
    last = weakref.ref(knots[-1])
    del knots

    async def until_it_is_gone() -> None:
        async with asyncio.timeout(10):
            while last() is not None:
                await asyncio.sleep(PAUSE_S)

    asyncio.run(collecting_beside(until_it_is_gone()))


def test_a_busy_loop_is_left_alone() -> None:
    knots = [Knot() for _ in range(OBJECTS)]
    last = weakref.ref(knots[-1])
    del knots

    async def busy() -> None:
        ends_s = time.monotonic() + 4 * PAUSE_S
        while time.monotonic() < ends_s:
            time.sleep(1e-3)  # noqa: ASYNC251 - the loop's time is what is taken
            await asyncio.sleep(0)

    asyncio.run(collecting_beside(busy()))
    assert last() is not None
