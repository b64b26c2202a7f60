"""The metrics of a sidecar by name, and how they are read from the running parts at the moment of a scrape.

Nothing is counted twice and nothing costs on the request's path: the parts keep plain counters, and this
collector turns them into the exposition format. Labels are bounded: backends of the fleet, and enums.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from extproc import __version__
from extproc.adapters.http.backend_metrics import backend_metrics
from extproc.adapters.http.metric_families import counter, counters, gauge, gauges, histograms
from extproc.adapters.http.state_document import Runtime, StateAt
from extproc.routing.queue.wait_counts import Ending


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
        backends = StateAt(self._runtime, time.monotonic()).backends()
        yield from backend_metrics(list(backends))
        yield from self._decisions()
        yield from self._retries()
        yield from self._queue()
        yield self._servers_wanted()
        yield from self._outcomes()
        yield from self._model()
        yield from self._health(self._runtime.server.is_draining)
        yield from self._discovery()
        yield from self._replicas()
        yield from self._spans()

    def _decisions(self) -> Iterator[Metric]:
        counts = self._runtime.core.router.counts
        yield counters(
            "extproc_decisions",
            "Decisions by layer and reason",
            ["layer", "reason"],
            counts.by_reason.items(),
        )
        yield counter(
            "extproc_guarded_decisions", "Decisions in which the guard took a backend out", counts.guarded
        )
        yield counter("extproc_passed_through", "Requests left to Envoy's own pool", counts.passed_through)
        yield counter("extproc_answered", "Lists of models that the sidecar answered itself", counts.answered)
        yield counter(
            "extproc_expected_cached_tokens",
            "Prompt tokens that were expected in the prefix cache of the chosen backend",
            counts.expected_cached_tokens,
        )
        yield counter(
            "extproc_followed_sessions",
            "Requests placed at the home of their session, where only the session shows what is cached",
            counts.followed_sessions,
        )
        yield counter(
            "extproc_prefilled_elsewhere",
            "Requests whose prompt was sent to a prefill server first",
            self._runtime.core.router.prefilling.placed,
        )

    def _retries(self) -> Iterator[Metric]:
        bookings = self._runtime.core.router.bookings
        yield counter("extproc_retries", "Second attempts that Envoy has made elsewhere", bookings.retries)
        yield counter(
            "extproc_retries_withheld",
            "Requests placed without a second attempt, for want of budget",
            bookings.retries_withheld,
        )

    def _queue(self) -> Iterator[Metric]:
        queue = self._runtime.core.queue
        if queue is None:
            return
        yield gauge("extproc_queue_requests", "Requests that wait for a place, of all models", queue.waiting)
        depths = [((model,), waiting) for model, waiting in queue.depths().items()]
        yield gauges(
            "extproc_queue_model_requests", "Requests that wait, where there are any", ["model"], depths
        )
        endings = [((ending,), queue.counts.endings[ending]) for ending in Ending]
        yield counters("extproc_queue_ended", "Requests that wait no more, by why", ["ending"], endings)
        waits = [((), queue.counts.waits)]
        documentation = "Waiting time of requests that left the queue for a server"
        yield histograms("extproc_queue_wait_seconds", documentation, [], waits)

    def _servers_wanted(self) -> Metric:
        wanted = self._runtime.core.servers_wanted(time.monotonic())
        return gauges(
            "extproc_servers_wanted",
            "Servers that a model's requests want, by the estimate, for an autoscaler; of 64 models",
            ["model"],
            [((model,), number) for model, number in wanted.items()],
        )

    def _outcomes(self) -> Iterator[Metric]:
        counts = self._runtime.core.feedback.counts
        yield counters(
            "extproc_outcomes",
            "Finished requests by backend and result",
            ["backend", "result"],
            counts.by_result.items(),
        )
        ttft = [((backend,), histogram) for backend, histogram in counts.ttft.items()]
        yield histograms("extproc_ttft_seconds", "Time to first token of streams", ["backend"], ttft)
        yield histograms(
            "extproc_client_ttft_seconds",
            "Time to first token of streams as clients see it: upload, router's queue and retries included",
            [],
            [((), counts.client_ttft)],
        )
        yield counter(
            "extproc_unplaced_outcomes", "Finished requests that no decision placed", counts.unplaced
        )
        yield counter(
            "extproc_failed_open",
            "Finished requests that Envoy sent to a server by itself, as no decision came in time",
            counts.failed_open,
        )

    def _model(self) -> Iterator[Metric]:
        models = self._runtime.core.model
        yield gauge("extproc_model_loaded", "1 if layer 2 has a model", models.current is not None)
        if models.current is not None:
            yield gauge(
                "extproc_model_promised_error",
                "Absolute log error that the model had on samples it was not made from",
                models.current.promised_error,
            )
            yield gauge(
                "extproc_model_trained_timestamp_seconds",
                "When the model in use was made, as a unix time",
                datetime.fromisoformat(models.current.manifest.trained_at).timestamp(),
            )
        yield gauge(
            "extproc_model_file_refused",
            "1 while the newest model file is not the one in use",
            models.last_refusal is not None,
        )
        yield counter("extproc_models_accepted", "Model files taken into use", models.accepted)
        yield counter("extproc_models_refused", "Model files refused", models.refused)
        seen_at_s = self._runtime.trainer.seen_at_s
        if seen_at_s is not None:
            yield gauge(
                "extproc_trainer_seen_timestamp_seconds",
                "When a trainer has last read the samples, as a unix time; no series where none ever has",
                seen_at_s,
            )

    def _health(self, is_draining: bool) -> Iterator[Metric]:
        server, samples = self._runtime.server, self._runtime.samples
        build = ((__version__,), 1.0)
        yield gauges("extproc_build_info", "1, for the version of the sidecar", ["version"], [build])
        scrapes = self._runtime.scraper.results
        yield counters(
            "extproc_scrapes", "Scrapes by backend and result", ["backend", "result"], scrapes.items()
        )
        yield gauge("extproc_open_streams", "Open ext_proc streams", server.open_streams)
        yield counter(
            "extproc_protocol_errors", "Streams or messages that broke the protocol", server.protocol_errors
        )
        yield gauge("extproc_tasks", "Tasks of the event loop, 0 outside of one", _n_tasks())
        yield gauge("extproc_draining", "1 while the sidecar drains", is_draining)
        if samples is not None:
            yield counter("extproc_samples_written", "Samples written to the store", samples.written)
            yield counter("extproc_samples_dropped", "Samples that could not be stored", samples.dropped)
            yield counter("extproc_sample_batches_retried", "Batches not written at once", samples.failures)

    def _replicas(self) -> Iterator[Metric]:
        link, replicas = self._runtime.link, self._runtime.core.replicas
        if link is not None and replicas is not None:
            yield gauge("extproc_replicas", "Other sidecars heard from in the last seconds", len(replicas))
            yield counter(
                "extproc_replica_datagrams_refused",
                "Datagrams that were unreadable, or not from a replica",
                link.refused,
            )

    def _spans(self) -> Iterator[Metric]:
        counts = self._runtime.span_counts
        if counts is not None:
            by_result = [((result,), count) for result, count in counts().items()]
            yield counters(
                "extproc_spans", "Spans of traced decisions, by what became of them", ["result"], by_result
            )

    def _discovery(self) -> Iterator[Metric]:
        counts = self._runtime.discovery
        yield counter(
            "extproc_discovery_answers", "Answers of discovery: which backends there are", counts.answers
        )
        yield counter("extproc_discovery_failures", "Attempts that got no usable answer", counts.failures)
        yield gauge(
            "extproc_discovery_doubted",
            "1 while no backend is found and those known before are kept",
            self._runtime.membership.is_doubting,
        )


def _n_tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0
