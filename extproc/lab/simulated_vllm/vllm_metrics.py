"""The `/metrics` of the simulated vLLM: the series that a router reads, with vLLM's names and labels.

The source is the output of a real vLLM 0.32 server. Its gauges lag behind by 0.3 to 0.5 s, so a router
decides on what was, not on what is, and so does what is shown here.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import monotonic

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from extproc.lab.engine.engine import Engine
from extproc.lab.engine.engine_profile import EngineLimits
from extproc.lab.engine.run import EngineCounters, StepResult


@dataclass(frozen=True, slots=True)
class EngineReading:
    """An engine's gauges and counters at one moment."""

    running: int
    waiting: int
    kv_cache_fraction: float
    counters: EngineCounters


class LateGauges:
    """One engine's readings, kept until something newer is old enough to be seen.

    `changed` has to be called whenever the engine has changed.
    """

    def __init__(self, engine: Engine, delay_s: float) -> None:
        self._engine = engine
        self._delay_s = delay_s
        self._readings = deque([(-delay_s, self._read())])

    def changed(self, now_s: float) -> None:
        """Read the engine, which is another one from now on."""
        self._readings.append((now_s, self._read()))
        self._forget(now_s)

    def seen(self, now_s: float) -> EngineReading:
        """Return how it was `delay_s` ago."""
        self._forget(now_s)
        return self._readings[0][1]

    def _forget(self, now_s: float) -> None:
        readings = self._readings
        while len(readings) > 1 and readings[1][0] <= now_s - self._delay_s:
            readings.popleft()

    def _read(self) -> EngineReading:
        engine, counters = self._engine, self._engine.counters
        copied = replace(counters, finished=dict(counters.finished))
        return EngineReading(engine.running, engine.waiting, engine.kv_cache_fraction, copied)


FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")
TTFT_BUCKETS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)


class EngineMetrics(Collector):
    """Reads an engine's gauges at each scrape; `model_name` is the first of the served names, as in vLLM."""

    def __init__(self, gauges: LateGauges, limits: EngineLimits, model_name: str) -> None:
        self._gauges = gauges
        self._limits = limits
        self._labels = {"engine": "0", "model_name": model_name}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._ttft = Histogram(
            "vllm:time_to_first_token_seconds",
            "Histogram of time to first token in seconds.",
            labelnames=tuple(self._labels),
            buckets=TTFT_BUCKETS_S,
            registry=self._registry,
        ).labels(**self._labels)

    def observe(self, result: StepResult) -> None:
        """Count the first tokens of an iteration."""
        for ttft_s in result.ttfts_s:
            self._ttft.observe(ttft_s)

    def exposition(self) -> bytes:
        """Return all series in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the engine's gauges and counters for one scrape."""
        engine = self._gauges.seen(monotonic())
        counters = engine.counters
        gauge, counter = GaugeMetricFamily, CounterMetricFamily
        for kind, name, documentation, value in (
            (gauge, "num_requests_running", "Number of requests in model execution batches.", engine.running),
            (gauge, "num_requests_waiting", "Number of requests waiting to be processed.", engine.waiting),
            (gauge, "kv_cache_usage_perc", "KV-cache usage, 0 to 1.", engine.kv_cache_fraction),
            (counter, "prompt_tokens", "Prefill tokens processed.", counters.prompt_tokens),
            (counter, "generation_tokens", "Generation tokens processed.", counters.generation_tokens),
            (counter, "prefix_cache_queries", "Prefix cache queries, in tokens.", counters.prefix_queries),
            (counter, "prefix_cache_hits", "Prefix cache hits, in tokens.", counters.prefix_hits),
            (counter, "num_preemptions", "Preemptions by the engine.", counters.preemptions),
        ):
            family = kind(f"vllm:{name}", documentation, labels=tuple(self._labels))
            family.add_metric(tuple(self._labels.values()), value)
            yield family
        yield self._finished(counters)
        yield self._cache_config()

    def _finished(self, counters: EngineCounters) -> Metric:
        labels = (*self._labels, "finished_reason")
        family = CounterMetricFamily("vllm:request_success", "Requests processed, by reason.", labels=labels)
        finished = {str(reason): count for reason, count in counters.finished.items()}
        for reason in FINISHED_REASONS:
            family.add_metric((*self._labels.values(), reason), finished.get(reason, 0))
        return family

    def _cache_config(self) -> Metric:
        limits = self._limits
        labels = {
            "engine": "0",
            "block_size": str(limits.block_size),
            "num_gpu_blocks": str(limits.kv_cache_blocks),
            "kv_cache_size_tokens": str(limits.kv_cache_blocks * limits.block_size),
        }
        family = GaugeMetricFamily(
            "vllm:cache_config_info", "Information of the LLMEngine CacheConfig", labels=tuple(labels)
        )
        family.add_metric(tuple(labels.values()), 1)
        return family
