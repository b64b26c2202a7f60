"""Objects of one kind as the Kubernetes API has them: listed once, then watched.

A watch that ends or breaks is taken up where it was, by the version of the last event, be it a bookmark.
Where the API has forgotten that version (410 Gone), or says something that is not understood, everything is
listed again. Meanwhile the last known objects stay. Pauses between attempts grow, so that an API server that
comes back is not run over.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic

from extproc.adapters.condition_log import ConditionLog
from extproc.adapters.discovery.kubernetes_api import KubernetesError, ObjectApi, ObjectQuery
from extproc.adapters.discovery.kubernetes_objects import Object
from extproc.adapters.discovery.source import DiscoveryCounts

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long to wait after a watch has ended; the pause doubles with every failure. Both are guessed."""

    min_s: float = 0.5
    max_s: float = 30.0

    def after(self, failures: int) -> float:
        """Return a pause that differs between sidecars."""
        return min(self.max_s, self.min_s * 2.0 ** min(failures, 10)) * random.uniform(0.5, 1.0)


USUAL_PAUSES = Pauses()


class ObjectWatch(Generic[Object]):
    """Keeps `objects`, by their names, at what the API has while `changes` is followed.

    `is_known` is set once they have been listed. An API server without objects of this kind, because their
    definition is not installed, counts as a failure; with `may_be_absent`, as an empty list.
    """

    def __init__(
        self,
        query: ObjectQuery[Object],
        counts: DiscoveryCounts,
        pauses: Pauses,
        *,
        may_be_absent: bool = False,
    ) -> None:
        self.objects: dict[str, Object] = {}
        self.is_known = False
        self._query = query
        self._shown = {"kind": query.kind.__name__, **query.selection}
        self._counts = counts
        self._pauses = pauses
        self._may_be_absent = may_be_absent
        self._conditions = ConditionLog(logger, "kubernetes_failed", "kubernetes_answers")
        self._version = ""  # none: they have to be listed
        self._failures = 0

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yield whenever the objects may be others, from the first list on; it never ends."""
        api: ObjectApi[Object] | None = None
        try:
            while True:
                try:
                    api = api or ObjectApi(self._query)
                    async with aclosing(self._follow(api)) as changes:
                        async for _ in changes:
                            self._heard()
                            yield
                    self._heard()
                except KubernetesError as error:
                    if self._failed(error):
                        yield
                await asyncio.sleep(self._pauses.after(self._failures))
        finally:
            if api is not None:
                await api.close()

    async def _follow(self, api: ObjectApi[Object]) -> AsyncGenerator[None, None]:
        """Follow one watch, after a list where one is needed."""
        if not self._version:
            listed = await api.list()
            self.objects = {one.metadata.name: one for one in listed.items}
            self._version = listed.metadata.resource_version
            self.is_known = True
            yield
        async with aclosing(api.watch(self._version)) as events:
            async for kind, version, one in events:
                self._version = version
                if one is not None and kind == "DELETED":
                    self.objects.pop(one.metadata.name, None)
                elif one is not None:
                    self.objects[one.metadata.name] = one
                yield

    def _heard(self) -> None:
        self._failures = 0
        self._counts.answers += 1
        self._conditions.holds(**self._shown)

    def _failed(self, error: KubernetesError) -> bool:
        """Return whether the objects may be others now: there are none of this kind."""
        self._failures += 1
        if error.must_list or error.is_absent:
            self._version = ""
        if error.is_absent and self._may_be_absent:
            self.objects = {}
            self.is_known = True
            return True
        self._counts.failures += 1
        self._conditions.failed(str(error), time.monotonic(), **self._shown)
        return False


class FollowedObjects(Generic[Object]):
    """Follows a watch in a task of its own, and sets `changed` after every change, until it is stopped."""

    def __init__(self, watch: ObjectWatch[Object], changed: asyncio.Event) -> None:
        self._watch = watch
        self._changed = changed
        self._task = asyncio.create_task(self._follow())
        self._task.add_done_callback(self._ended)

    @property
    def known(self) -> Mapping[str, Object] | None:
        """The objects by their names; None as long as they have not been listed."""
        if self._task.done():
            self._task.result()
        return self._watch.objects if self._watch.is_known else None

    async def stop(self) -> None:
        """End it."""
        self._task.cancel()
        await asyncio.wait([self._task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._changed.set()  # a fault of ours, which `known` raises

    async def _follow(self) -> None:
        async with aclosing(self._watch.changes()) as changes:
            async for _ in changes:
                self._changed.set()
