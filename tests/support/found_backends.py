"""The sets that a source of backends yields, waited for one by one."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from support.patience import PATIENCE_S, until

from extproc.adapters.discovery.source import BackendSource
from extproc.fleet.endpoint import Endpoint


class Found:
    """The sets of a source, and its counts."""

    def __init__(self, source: BackendSource, sets: AsyncGenerator[Sequence[Endpoint], None]) -> None:
        self.source = source
        self._sets = sets

    async def next(self) -> list[str]:
        async with asyncio.timeout(PATIENCE_S):
            return [f"{backend.name} {backend.address}" for backend in await anext(self._sets)]

    async def until(self, *backends: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.next() != list(backends):
                pass

    async def nothing_until(self, is_so: Callable[[], object]) -> asyncio.Task[list[str]]:
        """Wait for a condition, during which nothing may be said; the next set, to be awaited."""
        following = asyncio.create_task(self.next())
        await until(lambda: following.done() or is_so())
        assert not following.done()
        return following
