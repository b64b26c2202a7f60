"""A sidecar's parts in which everything has happened that a metric tells of, and what a scrape reads then."""

from collections.abc import Callable

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from support.running_parts import MAX_ACTIVE, Parts

from extproc.adapters.http.metrics import sidecar_registry
from extproc.adapters.vllm.asked_server import ScrapeResult
from extproc.outcomes.facts import Sample

SampleWith = Callable[..., Sample]


def exposition(parts: Parts) -> list[Metric]:
    """What a scrape of the sidecar reads."""
    return list(text_string_to_metric_families(generate_latest(sidecar_registry(parts.runtime)).decode()))


def let_everything_happen(parts: Parts, sample_with: SampleWith) -> None:
    """Something to say under every name; each time a bit more."""
    parts.offer_shipped_model()
    parts.offer_model(b"no model" * (1 + parts.core.model.refused))
    model = parts.core.model.current
    assert model is not None
    for before_s in (2.0, 0.0):
        parts.scrape(running=1.0, waiting=1.0, kv_cache_fraction=0.01, before_s=before_s)
    for name in ("vllm-1", "vllm-2"):
        parts.predict(0.1, 0.2, name)
        parts.backend(name).observed(0.3)
        parts.backend(name).reserve(parts.started_s)
        parts.backend(name).release(parts.started_s)
        parts.core.feedback.counts.count(sample_with(backend=name, ttft_s=0.3), 0.4)
        parts.core.feedback.counts.count(sample_with(backend=name, failure="connect", ttft_s=None))
        for result in ScrapeResult:
            parts.scraper.results[name, result] += 1
    parts.runtime.trainer.seen_at_s = 1.8e9
    parts.runtime.discovery.answers += 1
    parts.runtime.discovery.failures += 1
    for _ in range(3 * MAX_ACTIVE):
        parts.place()
    parts.place(model="nobody's")
    parts.core.router.counts.passed_through += 1
    parts.core.router.counts.answered += 1
    parts.core.router.counts.expected_cached_tokens += 100.0
    parts.core.router.counts.followed_sessions += 1
    parts.core.router.prefilling.placed += 1
    parts.core.router.bookings.retries += 1
    parts.core.router.bookings.retries_withheld += 1
    parts.core.feedback.counts.unplaced += 1
    parts.core.feedback.counts.failed_open += 1
    parts.server.protocol_errors += 1
    parts.link.datagram_received(b"", ("192.0.2.1", 9004))
    parts.spans["exported"] += 1
