"""Reads every backend's `/metrics`: 10 Hz where there is traffic, 1 Hz where there is none, within a budget.

One task per member of the fleet (`backend_watch`). A scrape that fails, lies or hangs leaves the last
signals to grow stale; a refused connection also counts against the backend, as does silence where it holds
requests of ours.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from extproc.adapters.vllm.api_keys import ApiKeys
from extproc.adapters.vllm.backend_watch import Asking, BackendWatch
from extproc.adapters.vllm.scrape_budget import MAX_PER_S, ScrapeBudget
from extproc.fleet.backend import Backend
from extproc.fleet.signals import ScrapeRule
from extproc.routing.core import Core

_START_APART_S = 0.001
"""Guessed: of thousands that join at once each is asked a little later, then and at every interval after."""


class Scraper:
    """Keeps one task per member of the fleet; `handle_scraped` follows each scrape that succeeds.

    `usual_key` is the key of the servers that have no file with one.
    """

    def __init__(
        self,
        rule: ScrapeRule,
        core: Core,
        handle_scraped: Callable[[], None] = lambda: None,
        usual_key: str | None = None,
        max_per_s: float = MAX_PER_S,
    ) -> None:
        self._core = core
        self._keys = ApiKeys(usual_key, self._key_changed)
        self._asking = Asking(rule, core, self._keys, handle_scraped, ScrapeBudget(rule, max_per_s))
        self.results = self._asking.results
        self._watches: dict[Backend, BackendWatch] = {}
        self._tasks: dict[Backend, asyncio.Task[None]] = {}

    def follow(self) -> None:
        """Start a task for every new member, stop those of members that have left."""
        members = [each for each in self._core.registry.members if not each.endpoint.speaks_only_grpc]
        for gone in self._tasks.keys() - set(members):
            self._tasks.pop(gone).cancel()
            del self._watches[gone]
        for number, backend in enumerate(each for each in members if each not in self._tasks):
            watch = self._watches[backend] = BackendWatch(backend, self._asking)
            self._tasks[backend] = asyncio.create_task(watch.run(_START_APART_S * number))
        paths = {path for each in members if (path := each.endpoint.api_key_path) is not None}
        self._keys.follow(paths)
        names = {backend.name for backend in members}
        self._asking.logs.keep_only(names)
        for key in [key for key in self.results if key[0] not in names]:
            del self.results[key]

    def want_models(self) -> list[asyncio.Future[None]]:
        """Have all servers asked for their models at once that say themselves what they serve."""
        return [
            watch.want_models() for backend, watch in self._watches.items() if backend.endpoint.models is None
        ]

    async def stop(self) -> None:
        """End all tasks, and with them their connections."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._watches.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._keys.stop()

    def _key_changed(self, path: Path) -> None:
        for backend, watch in self._watches.items():
            if backend.endpoint.api_key_path == path:
                watch.key_changed()
