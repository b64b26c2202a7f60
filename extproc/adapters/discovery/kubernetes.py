"""The ready endpoints of a service, as the Kubernetes API tells them in its EndpointSlices."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from lightkube.resources.discovery_v1 import EndpointSlice as EndpointSliceResource

from extproc.adapters.discovery.endpoint_slices import EndpointSlice, backends_of
from extproc.adapters.discovery.kubernetes_api import ObjectQuery
from extproc.adapters.discovery.object_watch import USUAL_PAUSES, ObjectWatch, Pauses
from extproc.adapters.discovery.source import DiscoveryCounts
from extproc.config.discovery_stage import KubernetesDiscovery
from extproc.fleet.endpoint import Endpoint


class KubernetesSource:
    """Yields the backends after the list, and after every change of a slice."""

    def __init__(self, config: KubernetesDiscovery, pauses: Pauses = USUAL_PAUSES) -> None:
        self.counts = DiscoveryCounts()
        self._config = config
        query = ObjectQuery(
            EndpointSliceResource, EndpointSlice, config.namespace, {"labelSelector": config.selector}
        )
        self._slices = ObjectWatch(query, self.counts, pauses)

    async def sets(self) -> AsyncGenerator[Sequence[Endpoint], None]:
        """Yield one set for each answer or event."""
        async with aclosing(self._slices.changes()) as changes:
            async for _ in changes:
                yield backends_of(self._slices.objects.values(), self._config)
