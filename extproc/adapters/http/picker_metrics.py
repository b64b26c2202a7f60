"""The gauges that autoscalers and dashboards of the Gateway API's inference extension read, by name.

They stand beside our own metrics, and are made from the same parts at the moment of a scrape. The names are
those of the llm-d router (its docs/metrics.md), canonical and before 2026.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from extproc.adapters.http.metric_families import gauges
from extproc.adapters.http.state_document import Runtime
from extproc.fleet.backend import Backend, Lifecycle

Names = tuple[str, str]

_READY: Names = ("llm_d_epp_ready_endpoints", "inference_pool_ready_pods")
_KV_CACHE: Names = (
    "llm_d_epp_average_kv_cache_utilization",
    "inference_pool_average_kv_cache_utilization",
)
_QUEUE: Names = ("llm_d_epp_average_queue_size", "inference_pool_average_queue_size")
_RUNNING: Names = ("llm_d_epp_average_running_requests", "inference_pool_average_running_requests")
_WAITING: Names = ("llm_d_epp_flow_control_queue_size", "inference_extension_flow_control_queue_size")
_IN_FLIGHT: Names = ("llm_d_epp_request_running", "inference_objective_running_requests")
_INFO: Names = ("llm_d_epp_info", "inference_extension_info")


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
        kv_cache = _mean(member.kv_cache_fraction for member in known)
        yield from self._of_pool(_READY, "Endpoints that may be chosen", len(active))
        yield from self._of_pool(_KV_CACHE, "Mean share of the KV caches in use, 0 to 1", kv_cache)
        yield from self._of_pool(
            _QUEUE, "Mean of requests that wait at a server", _mean(m.waiting for m in known)
        )
        yield from self._of_pool(
            _RUNNING, "Mean of requests that a server runs", _mean(m.running for m in known)
        )
        waiting = 0 if core.queue is None else core.queue.waiting
        yield from _by_both(_WAITING, "Requests that wait for a place, of all models", (), {(): waiting})
        yield from self._in_flight(core.registry.members)
        build = ("", version("vllm-extproc"))
        yield from _by_both(_INFO, "The version of this picker", ("commit", "build_ref"), {build: 1})

    def _of_pool(self, names: Names, documentation: str, value: float) -> Iterator[Metric]:
        return _by_both(names, documentation, ("name",), {(self._pool,): value})

    def _in_flight(self, members: Iterable[Backend]) -> Iterator[Metric]:
        """Yield a series for each served model, also before its first request."""
        counts = Counter(booking.request.model or "" for member in members for booking in member.open)
        models = sorted({*self._runtime.core.registry.models(), *counts})
        by_model: dict[tuple[str, ...], float] = {(model,): counts[model] for model in models}
        return _by_both(_IN_FLIGHT, "Requests in flight", ("model_name",), by_model)


def _by_both(
    names: Names, documentation: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]
) -> Iterator[Metric]:
    return (gauges(name, documentation, labels, values.items()) for name in names)


def _mean(values: Iterable[float]) -> float:
    """Return the mean of what is known, 0 where nothing is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else 0.0
