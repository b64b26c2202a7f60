"""Follows the objects that belong to an InferencePool, and has them in force: objectives and model rewrites.

Their definitions need not be installed; without them there are no such objects. As long as the API does not
answer, those known before stay in force.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic

from lightkube.generic_resource import create_namespaced_resource

from extproc.adapters.discovery.kubernetes_api import ObjectQuery
from extproc.adapters.discovery.kubernetes_objects import Object
from extproc.adapters.discovery.object_watch import USUAL_PAUSES, FollowedObjects, ObjectWatch, Pauses
from extproc.adapters.discovery.pool_objects import (
    GROUPS,
    VERSION,
    InferenceModelRewrite,
    InferenceObjective,
    priorities_of,
    rules_of,
)
from extproc.adapters.discovery.source import DiscoveryCounts
from extproc.config.discovery_stage import InferencePoolDiscovery
from extproc.request.model_rewrite import ModelRewrites
from extproc.request.objectives import InferenceObjectives


@dataclass(frozen=True, slots=True, eq=False)
class PoolRules:
    """Keeps `objectives` and `rewrites` at what the API has for one pool, while `follow` runs."""

    _config: InferencePoolDiscovery
    _objectives: InferenceObjectives
    _rewrites: ModelRewrites
    _pauses: Pauses = USUAL_PAUSES
    counts: DiscoveryCounts = field(default_factory=DiscoveryCounts)

    async def follow(self) -> None:
        """Take over every change; it never ends."""
        changed = asyncio.Event()
        objectives = _OfAllGroups(self._queries(InferenceObjective), changed, self.counts, self._pauses)
        rewrites = _OfAllGroups(self._queries(InferenceModelRewrite), changed, self.counts, self._pauses)
        try:
            while True:
                await changed.wait()
                changed.clear()
                self._objectives.replace(priorities_of(objectives.known(), self._config.name))
                self._rewrites.replace(rules_of(rewrites.known(), self._config.name))
        finally:
            await objectives.stop()
            await rewrites.stop()

    def _queries(self, kind: type[Object]) -> list[ObjectQuery[Object]]:
        plural = f"{kind.__name__.lower()}s"
        resources = [create_namespaced_resource(group, VERSION, kind.__name__, plural) for group in GROUPS]
        return [ObjectQuery(resource, kind, self._config.namespace, {}) for resource in resources]


class _OfAllGroups(Generic[Object]):
    """The objects of one kind in all groups; of two with one name, that of the first group comes last."""

    def __init__(
        self,
        queries: Iterable[ObjectQuery[Object]],
        changed: asyncio.Event,
        counts: DiscoveryCounts,
        pauses: Pauses,
    ) -> None:
        watches = (ObjectWatch(query, counts, pauses, may_be_absent=True) for query in queries)
        self._groups = [FollowedObjects(watch, changed) for watch in watches]

    def known(self) -> list[Object]:
        """Return all objects that are known; those of a group that has not answered yet are missing."""
        merged: dict[str, Object] = {}
        for group in reversed(self._groups):
            merged |= group.known or {}
        return list(merged.values())

    async def stop(self) -> None:
        """End the watches."""
        for group in self._groups:
            await group.stop()
