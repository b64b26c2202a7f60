"""The ready endpoints of a service, as the Kubernetes API tells them: listed once, then watched.

A watch that ends or breaks is taken up where it was, by the version of the last thing heard, be it a
bookmark. Where the API has forgotten that version (410 Gone), or says something that is not understood,
everything is listed again. Meanwhile the last known set stays. Pauses between attempts grow, so that an API
server that comes back is not run over.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from extproc.adapters.condition_log import ConditionLog
from extproc.adapters.discovery.endpoint_slices import EndpointSlice, backends_of
from extproc.adapters.discovery.kubernetes_api import KubernetesApi, KubernetesError
from extproc.adapters.discovery.source import DiscoveryCounts
from extproc.config.discovery_stage import KubernetesDiscovery
from extproc.fleet.endpoint import Endpoint

logger = logging.getLogger(__name__)

MIN_PAUSE_S = 0.5
MAX_PAUSE_S = 30.0


class KubernetesSource:
    """Yields the backends after the list, and after every change of a slice."""

    def __init__(
        self,
        config: KubernetesDiscovery,
        *,
        min_pause_s: float = MIN_PAUSE_S,
        max_pause_s: float = MAX_PAUSE_S,
    ) -> None:
        self.counts = DiscoveryCounts()
        self._config = config
        self._conditions = ConditionLog(logger, "kubernetes_failed", "kubernetes_answers")
        self._min_pause_s = min_pause_s
        self._max_pause_s = max_pause_s
        self._slices: dict[str, EndpointSlice] = {}
        self._version = ""  # none: they have to be listed
        self._failures = 0

    async def sets(self) -> AsyncGenerator[Sequence[Endpoint], None]:
        """One set for each answer or event."""
        api: KubernetesApi | None = None
        try:
            while True:
                try:
                    api = api or KubernetesApi(self._config.namespace, self._config.selector)
                    async with aclosing(self._follow(api)) as changes:
                        async for _ in changes:
                            self._heard()
                            yield backends_of(self._slices.values(), self._config)
                    self._heard()
                except KubernetesError as error:
                    self._failed(error)
                await asyncio.sleep(self._pause_s())
        finally:
            if api is not None:
                await api.close()

    async def _follow(self, api: KubernetesApi) -> AsyncGenerator[None, None]:
        """One watch, after a list where one is needed; yields whenever the slices may be others."""
        if not self._version:
            listed = await api.list()
            self._slices = {one.metadata.name: one for one in listed.items}
            self._version = listed.metadata.resource_version
            yield
        async with aclosing(api.watch(self._version)) as events:
            async for kind, one in events:
                self._version = one.metadata.resource_version
                if kind == "DELETED":
                    self._slices.pop(one.metadata.name, None)
                elif kind != "BOOKMARK":
                    self._slices[one.metadata.name] = one
                yield

    def _heard(self) -> None:
        self._failures = 0
        self.counts.answers += 1
        self._conditions.holds(selector=self._config.selector)

    def _failed(self, error: KubernetesError) -> None:
        self._failures += 1
        self.counts.failures += 1
        if error.must_list:
            self._version = ""
        self._conditions.failed(str(error), time.monotonic(), selector=self._config.selector)

    def _pause_s(self) -> float:
        """Return a pause that doubles with every failure, and differs between sidecars."""
        longest_s = min(self._max_pause_s, self._min_pause_s * 2.0 ** min(self._failures, 10))
        return longest_s * random.uniform(0.5, 1.0)
