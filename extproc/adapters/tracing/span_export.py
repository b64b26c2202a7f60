"""Sends finished spans by OTLP over HTTP, from a thread of its own: no request waits for it.

The library keeps a bounded number of spans and drops what comes beyond. A collector that is slow, or gone,
costs spans and nothing else.
"""

import asyncio
import importlib.metadata
import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Tracer, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from extproc.adapters.condition_log import ConditionLog
from extproc.config.tracing_stage import TracingConfig

logger = logging.getLogger(__name__)

MAX_WAITING = 2048
"""Borrowed: the library's own default; spans that wait for the exporter."""

EXPORT_TIMEOUT_S = 3.0
"""Guessed: also how long the end of the process waits for the last spans."""

INTERVAL_S = 1.0
"""Guessed: how long a span waits for others to be sent with."""


class CountedExporter(SpanExporter):
    """Counts what became of the spans, in `counts` by result, and logs that none arrive."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.counts: Counter[str] = Counter()
        self._exporter = exporter
        self._conditions = ConditionLog(logger, "spans_failed", "spans_exported")
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it would tell of every attempt

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send some spans."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.counts["exported"] += len(spans)
            self._conditions.holds()
        else:
            self.counts["failed"] += len(spans)
            self._conditions.failed("the collector did not take them", time.monotonic())
        return result

    def shutdown(self) -> None:
        """Send nothing any more."""
        self._exporter.shutdown()


class SpanExport:
    """Where spans go; `counts` says what became of them."""

    def __init__(self, config: TracingConfig, timeout_s: float = EXPORT_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        exporter = CountedExporter(OTLPSpanExporter(endpoint=config.endpoint, timeout=timeout_s))
        self.counts = exporter.counts
        resource = Resource.create(
            {
                "service.name": config.service_name,
                "service.version": importlib.metadata.version("vllm-extproc"),
            }
        )
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=MAX_WAITING,
                schedule_delay_millis=1000 * INTERVAL_S,
                export_timeout_millis=1000 * timeout_s,
            )
        )

    @property
    def tracer(self) -> Tracer:
        """Makes the spans."""
        tracer = self._provider.get_tracer("extproc")
        assert isinstance(tracer, Tracer)
        return tracer

    async def stop(self) -> None:
        """Send what is left, as far as that is possible in time; the process does not wait for the thread."""
        loop, has_ended = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop is closed by then
                loop.call_soon_threadsafe(has_ended.set)

        threading.Thread(target=end, daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await has_ended.wait()
