"""Every metric's name, and how it is read from the running parts at the moment of a scrape.

Nothing is counted twice and nothing costs on the request's path: the parts keep plain counters, and this
collector turns them into the exposition format. Labels are bounded: backends of the fleet, and enums.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from extproc import __version__
from extproc.adapters.http.fleet_state import REFERENCE_TOKENS, BackendStatus
from extproc.adapters.http.state_document import Runtime, state_document
from extproc.fleet.backend import Lifecycle
from extproc.outcomes.outcome_counts import Histogram
from extproc.routing.queue.wait_counts import Ending

# By field of `BackendStatus`.
_GAUGES = {
    "own": ("extproc_backend_own_requests", "Requests in flight that this sidecar sent"),
    "foreign": ("extproc_backend_foreign_requests", "Requests that others sent, as far as known"),
    "load": ("extproc_backend_load_requests", "own + foreign"),
    "max_active": ("extproc_backend_max_active_requests", "Load from which on it takes no more requests"),
    "waits_above": (
        "extproc_backend_waits_above_requests",
        "Load above which one more would wait too long in its queue; no series where there is no such queue",
    ),
    "prompts_ahead_s": (
        "extproc_backend_prompts_ahead_seconds",
        "Time for the prompts that were sent there and are not computed yet",
    ),
    "num_running": ("extproc_backend_running_requests", "Estimate of the running requests for now"),
    "kv_cache_fraction": ("extproc_backend_kv_cache_fraction", "Share of the KV cache in use, 0 to 1"),
    "scrape_age_s": ("extproc_backend_scrape_age_seconds", "Age of the last good scrape"),
    "is_fresh": ("extproc_backend_signals_fresh", "1 if the last good scrape is young enough to count"),
    "is_routable": ("extproc_backend_routable", "1 if the backend may be chosen"),
    "predicted_ttft_s": (
        "extproc_backend_predicted_ttft_seconds",
        f"Prediction for a request of {REFERENCE_TOKENS} tokens that came now",
    ),
    "expected_s": (
        "extproc_backend_expected_seconds",
        f"What layer 3 compares, for a request of {REFERENCE_TOKENS} tokens: load, at the backend's pace",
    ),
    "observed_ttft_s": ("extproc_backend_observed_ttft_seconds", "Moving average of the observed TTFT"),
    "running_error": (
        "extproc_backend_prediction_error",
        "Running absolute log error of the estimate as the model corrects it",
    ),
    "plain_error": (
        "extproc_backend_estimate_error",
        "Running absolute log error of the plain estimate, for the same requests",
    ),
    "is_model_trusted": (
        "extproc_backend_model_trusted",
        "1 if the model corrects the estimate, 0 if the plain estimate predicts as well",
    ),
}
_ENUMS = {
    "zone": ("extproc_backend_zone", "zone", "1 for the zone it is in"),
    "reason": (
        "extproc_backend_state",
        "state",
        "1 for why it may be chosen (ok, probing) or may not (saturated, asleep, failing, joining, draining)",
    ),
}


def sidecar_registry(runtime: Runtime, more: Iterable[Collector] = ()) -> CollectorRegistry:
    """Return all metrics of a sidecar, those of its process and of `more` collectors included."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in (SidecarCollector(runtime), *more):
        registry.register(collector)
    ProcessCollector(namespace="extproc", registry=registry)
    return registry


class SidecarCollector(Collector):
    """Reads a `Runtime` at the moment of a scrape."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, as of now."""
        state = state_document(self._runtime, time.monotonic())
        yield from _backend_gauges(_one_per_name(state.backends))
        yield from self._decisions()
        yield from self._queue()
        yield self._servers_wanted()
        yield from self._outcomes()
        yield from self._model()
        yield from self._health(state.draining)
        yield from self._discovery()
        yield from self._replicas()
        yield from self._spans()

    def _decisions(self) -> Iterator[Metric]:
        counts = self._runtime.core.router.counts
        yield _counters(
            "extproc_decisions",
            "Decisions by layer and reason",
            ["layer", "reason"],
            counts.by_reason.items(),
        )
        yield _counter(
            "extproc_guarded_decisions", "Decisions in which the guard took a backend out", counts.guarded
        )
        yield _counter("extproc_passed_through", "Requests left to Envoy's own pool", counts.passed_through)
        yield _counter(
            "extproc_answered", "Lists of models that the sidecar answered itself", counts.answered
        )
        yield _counter(
            "extproc_expected_cached_tokens",
            "Prompt tokens that were expected in the prefix cache of the chosen backend",
            counts.expected_cached_tokens,
        )
        yield _counter(
            "extproc_followed_sessions",
            "Requests placed at the home of their session, where only the session shows what is cached",
            counts.followed_sessions,
        )
        yield _counter(
            "extproc_prefilled_elsewhere",
            "Requests whose prompt was sent to a prefill server first",
            self._runtime.core.router.prefilling.placed,
        )
        bookings = self._runtime.core.router.bookings
        yield _counter("extproc_retries", "Second attempts that Envoy has made elsewhere", bookings.retries)
        yield _counter(
            "extproc_retries_withheld",
            "Requests placed without a second attempt, for want of budget",
            bookings.retries_withheld,
        )

    def _queue(self) -> Iterator[Metric]:
        queue = self._runtime.core.queue
        if queue is None:
            return
        yield _gauge("extproc_queue_requests", "Requests that wait for a place, of all models", queue.waiting)
        depth = GaugeMetricFamily(
            "extproc_queue_model_requests", "Requests that wait, where there are any", labels=["model"]
        )
        for model, waiting in queue.depths().items():
            depth.add_metric([model], waiting)
        yield depth
        endings = [((ending,), queue.counts.endings[ending]) for ending in Ending]
        yield _counters("extproc_queue_ended", "Requests that wait no more, by why", ["ending"], endings)
        wait = HistogramMetricFamily(
            "extproc_queue_wait_seconds", "Waiting time of requests that left the queue for a server"
        )
        wait.add_metric([], _buckets(queue.counts.waits), queue.counts.waits.sum_s)
        yield wait

    def _servers_wanted(self) -> Metric:
        wanted = GaugeMetricFamily(
            "extproc_servers_wanted",
            "Servers that a model's requests want, by the estimate, for an autoscaler; of 64 models",
            labels=["model"],
        )
        for model, number in self._runtime.core.servers_wanted(time.monotonic()).items():
            wanted.add_metric([model], number)
        return wanted

    def _outcomes(self) -> Iterator[Metric]:
        counts = self._runtime.core.feedback.counts
        yield _counters(
            "extproc_outcomes",
            "Finished requests by backend and result",
            ["backend", "result"],
            counts.by_result.items(),
        )
        ttft = HistogramMetricFamily(
            "extproc_ttft_seconds", "Time to first token of streams", labels=["backend"]
        )
        for backend, histogram in counts.ttft.items():
            ttft.add_metric([backend], _buckets(histogram), histogram.sum_s)
        yield ttft
        client_ttft = HistogramMetricFamily(
            "extproc_client_ttft_seconds",
            "Time to first token of streams as clients see it: upload, router's queue and retries included",
        )
        client_ttft.add_metric([], _buckets(counts.client_ttft), counts.client_ttft.sum_s)
        yield client_ttft
        yield _counter(
            "extproc_unplaced_outcomes", "Finished requests that no decision placed", counts.unplaced
        )
        yield _counter(
            "extproc_failed_open",
            "Finished requests that Envoy sent to a server by itself, as no decision came in time",
            counts.failed_open,
        )

    def _model(self) -> Iterator[Metric]:
        models = self._runtime.core.model
        yield _gauge("extproc_model_loaded", "1 if layer 2 has a model", models.current is not None)
        if models.current is not None:
            yield _gauge(
                "extproc_model_promised_error",
                "Absolute log error that the model had on samples it was not made from",
                models.current.promised_error,
            )
            yield _gauge(
                "extproc_model_trained_timestamp_seconds",
                "When the model in use was made, as a unix time",
                datetime.fromisoformat(models.current.manifest.trained_at).timestamp(),
            )
        yield _gauge(
            "extproc_model_file_refused",
            "1 while the newest model file is not the one in use",
            models.last_refusal is not None,
        )
        yield _counter("extproc_models_accepted", "Model files taken into use", models.accepted)
        yield _counter("extproc_models_refused", "Model files refused", models.refused)
        seen_at_s = self._runtime.trainer.seen_at_s
        if seen_at_s is not None:
            yield _gauge(
                "extproc_trainer_seen_timestamp_seconds",
                "When a trainer has last read the samples, as a unix time; no series where none ever has",
                seen_at_s,
            )

    def _health(self, is_draining: bool) -> Iterator[Metric]:
        server, samples = self._runtime.server, self._runtime.samples
        build = GaugeMetricFamily(
            "extproc_build_info", "1, for the version of the sidecar", labels=["version"]
        )
        build.add_metric([__version__], 1.0)
        yield build
        scrapes = self._runtime.scraper.results
        yield _counters(
            "extproc_scrapes", "Scrapes by backend and result", ["backend", "result"], scrapes.items()
        )
        yield _gauge("extproc_open_streams", "Open ext_proc streams", server.open_streams)
        yield _counter(
            "extproc_protocol_errors", "Streams or messages that broke the protocol", server.protocol_errors
        )
        yield _gauge("extproc_tasks", "Tasks of the event loop, 0 outside of one", _n_tasks())
        yield _gauge("extproc_draining", "1 while the sidecar drains", is_draining)
        if samples is not None:
            yield _counter("extproc_samples_written", "Samples written to the store", samples.written)
            yield _counter("extproc_samples_dropped", "Samples that could not be stored", samples.dropped)
            yield _counter("extproc_sample_batches_retried", "Batches not written at once", samples.failures)

    def _replicas(self) -> Iterator[Metric]:
        link, replicas = self._runtime.link, self._runtime.core.replicas
        if link is not None and replicas is not None:
            yield _gauge("extproc_replicas", "Other sidecars heard from in the last seconds", len(replicas))
            yield _counter(
                "extproc_replica_datagrams_refused",
                "Datagrams that were unreadable, or not from a replica",
                link.refused,
            )

    def _spans(self) -> Iterator[Metric]:
        counts = self._runtime.span_counts
        if counts is not None:
            by_result = [((result,), count) for result, count in counts().items()]
            yield _counters(
                "extproc_spans", "Spans of traced decisions, by what became of them", ["result"], by_result
            )

    def _discovery(self) -> Iterator[Metric]:
        counts = self._runtime.discovery
        yield _counter(
            "extproc_discovery_answers", "Answers of discovery: which backends there are", counts.answers
        )
        yield _counter("extproc_discovery_failures", "Attempts that got no usable answer", counts.failures)
        yield _gauge(
            "extproc_discovery_doubted",
            "1 while no backend is found and those known before are kept",
            self._runtime.membership.is_doubting,
        )


def _n_tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0


def _one_per_name(backends: Sequence[BackendStatus]) -> list[BackendStatus]:
    """Keep one backend per name, so that no series comes twice: after a move, the one that stays."""
    leaving_first = sorted(backends, key=lambda backend: backend.membership != Lifecycle.DRAINING)
    return list({backend.name: backend for backend in leaving_first}.values())


def _backend_gauges(backends: Sequence[BackendStatus]) -> Iterator[Metric]:
    """Leave out a value that is not known: a NaN would spoil every sum."""
    for field, (name, documentation) in _GAUGES.items():
        family = GaugeMetricFamily(name, documentation, labels=["backend"])
        for backend in backends:
            value: float | None = getattr(backend, field)
            if value is not None:
                family.add_metric([backend.name], float(value))
        yield family
    for field, (name, label, documentation) in _ENUMS.items():
        family = GaugeMetricFamily(name, documentation, labels=["backend", label])
        for backend in backends:
            family.add_metric([backend.name, getattr(backend, field)], 1.0)
        yield family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*map(str, histogram.bounds_s), "+Inf"]
    return [(bound, float(count)) for bound, count in zip(bounds, accumulate(histogram.counts), strict=True)]


def _counters(
    name: str, documentation: str, labels: Sequence[str], counts: Iterable[tuple[tuple[str, ...], int]]
) -> Metric:
    """Return a counter for each combination of labels that was counted; enums show their values."""
    family = CounterMetricFamily(name, documentation, labels=labels)
    for values, count in counts:
        family.add_metric([str(value) for value in values], count)
    return family


def _counter(name: str, documentation: str, value: float) -> Metric:
    return CounterMetricFamily(name, documentation, value=value)


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=float(value))
