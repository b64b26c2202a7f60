"""The list in the configuration, which may be replaced by another one when the file changes."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from extproc.adapters.discovery.source import DiscoveryCounts
from extproc.fleet.endpoint import Endpoint


class StaticList:
    """Yields the list, and each that replaces it."""

    def __init__(self, backends: Sequence[Endpoint]) -> None:
        self.counts = DiscoveryCounts()
        self._backends = backends
        self._is_new = asyncio.Event()
        self._is_new.set()

    def replace(self, backends: Sequence[Endpoint]) -> None:
        """The file has changed."""
        self._backends = backends
        self._is_new.set()

    async def sets(self) -> AsyncGenerator[Sequence[Endpoint], None]:
        """The list, whenever it is another one."""
        while True:
            await self._is_new.wait()
            self._is_new.clear()
            self.counts.answers += 1
            yield self._backends
