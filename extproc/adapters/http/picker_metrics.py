"""The metrics that autoscalers and dashboards of the Gateway API's inference extension read, by name.

They stand beside our own metrics, and are made from the same parts at the moment of a scrape. The names are
those of the llm-d router (its docs/metrics.md) and of the extension before it.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from extproc.adapters.http.state_document import Runtime
from extproc.fleet.backend import Backend, Lifecycle


class PickerCollector(Collector):
    """Reads a `Runtime` at the moment of a scrape; `pool` is the label `name`."""

    def __init__(self, runtime: Runtime, pool: str) -> None:
        self._runtime = runtime
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, as of now."""
        core, now_s = self._runtime.core, time.monotonic()
        active = [member for member in core.registry.members if member.lifecycle is Lifecycle.ACTIVE]
        known = [member for member in active if member.is_fresh(now_s)]
        yield self._of_pool("ready_pods", "Endpoints that may be chosen", len(active))
        yield self._of_pool(
            "average_kv_cache_utilization",
            "Mean share of the KV caches in use, 0 to 1",
            _mean(member.kv_cache_fraction for member in known),
        )
        yield self._of_pool(
            "average_queue_size", "Mean of requests that wait at a server", _mean(m.waiting for m in known)
        )
        yield self._of_pool(
            "average_running_requests", "Mean of requests that a server runs", _mean(m.running for m in known)
        )
        waiting = 0 if core.queue is None else core.queue.waiting
        for name in ("llm_d_epp_flow_control_queue_size", "inference_extension_flow_control_queue_size"):
            yield GaugeMetricFamily(name, "Requests that wait for a place, of all models", value=waiting)
        yield from self._running(core.registry.members)

    def _of_pool(self, name: str, documentation: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"inference_pool_{name}", documentation, labels=["name"])
        family.add_metric([self._pool], value)
        return family

    def _running(self, members: Iterable[Backend]) -> Iterator[Metric]:
        """Yield a series for each served model, also before its first request."""
        served = self._runtime.core.registry.models()
        running = Counter(booking.request.model or "" for member in members for booking in member.open)
        family = GaugeMetricFamily(
            "inference_objective_running_requests", "Requests in flight", labels=["model_name"]
        )
        for model in sorted({*served, *running}):
            family.add_metric([model], running[model])
        yield family


def _mean(values: Iterable[float]) -> float:
    """Return the mean of what is known, 0 where nothing is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else 0.0
