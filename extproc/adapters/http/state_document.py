"""Builds the document of `/v1/state` from the running parts."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from extproc.adapters.discovery.membership_feed import MembershipFeed
from extproc.adapters.discovery.source import DiscoveryCounts
from extproc.adapters.envoy.services import EnvoyServer
from extproc.adapters.files.sample_store import SampleStore
from extproc.adapters.files.trainer_sign import TrainerWatch
from extproc.adapters.http.fleet_state import (
    REFERENCE_TOKENS,
    BackendStatus,
    FleetState,
    ModelStatus,
    QueueStatus,
)
from extproc.adapters.replica_link import ReplicaLink
from extproc.adapters.vllm.scraper import Scraper
from extproc.fleet.backend import Backend, Lifecycle
from extproc.fleet.view import FleetView
from extproc.fleet.wait_terms import ExpectedWait
from extproc.policy.expected_wait import estimates
from extproc.policy.predictive import corrections
from extproc.routing.core import Core
from extproc.routing.queue.request_queue import RequestQueue


@dataclass(frozen=True, slots=True)
class Runtime:
    """The running parts of a sidecar: the core and the I/O around it; looking at them changes nothing."""

    core: Core
    scraper: Scraper
    server: EnvoyServer
    samples: SampleStore | None
    discovery: DiscoveryCounts
    membership: MembershipFeed
    trainer: TrainerWatch
    link: ReplicaLink | None = None
    span_counts: Callable[[], Mapping[str, int]] | None = None


def state_document(runtime: Runtime, now_s: float) -> FleetState:
    """Return the state at `now_s` (monotonic seconds)."""
    core = runtime.core
    view = core.fleet.view(core.registry.members, now_s)
    counts = core.router.counts
    return FleetState(
        backends=_backends(runtime, view),
        model=_model(runtime),
        decisions=counts.by_layer(),
        reasons={
            f"{layer.value}.{reason.value}": count
            for (layer, reason), count in sorted(counts.by_reason.items())
        },
        passed_through=counts.passed_through,
        queue=None if core.queue is None else _queue(core.queue, now_s),
        draining=runtime.server.is_draining,
    )


def _queue(queue: RequestQueue, now_s: float) -> QueueStatus:
    return QueueStatus(
        waiting=queue.waiting,
        by_model=queue.depths(),
        oldest_s=queue.oldest_s(now_s),
        ended={ending.value: count for ending, count in sorted(queue.counts.endings.items())},
    )


def _backends(runtime: Runtime, view: FleetView) -> list[BackendStatus]:
    terms = dict(zip(view.backends, estimates(view, REFERENCE_TOKENS, {}), strict=True))
    predicted_s = _predicted_s(runtime, view, terms)
    return [
        _backend(runtime, backend, view, predicted_s.get(backend), estimate)
        for backend, estimate in terms.items()
    ]


def _backend(
    runtime: Runtime, backend: Backend, view: FleetView, predicted_s: float | None, estimate: ExpectedWait
) -> BackendStatus:
    known, reason = view.facts(backend, estimate), _reason(backend, view)
    is_scraped = known.scrape_age_s is not None
    return BackendStatus(
        name=backend.name,
        address=backend.endpoint.address,
        models=None if backend.models is None else sorted(backend.models),
        own=backend.own,
        foreign=known.foreign,
        load=known.load,
        running=backend.running if is_scraped else None,
        waiting=backend.waiting if is_scraped else None,
        num_running=known.num_running,
        kv_cache_fraction=_finite(backend.kv_cache_fraction),
        scrape_age_s=known.scrape_age_s,
        is_fresh=view.is_fresh(backend),
        zone=known.zone,
        max_active=backend.limits.max_active,
        waits_above=_finite(backend.limits.waits_above),
        prompts_ahead_s=known.ahead_tokens * backend.pace.token_s,
        membership=backend.lifecycle.value,
        is_routable=reason in {"ok", "probing"},
        reason=reason,
        predicted_ttft_s=predicted_s,
        expected_s=estimate.score_s,
        observed_ttft_s=_finite(backend.observed_ttft_s),
        running_error=backend.predictions.error,
        plain_error=backend.predictions.plain_error,
        is_model_trusted=None if runtime.core.model.current is None else backend.predictions.is_trusted,
    )


def _reason(backend: Backend, view: FleetView) -> str:
    """Return why a backend is or is not chosen: lifecycle, then failures, sleep, and saturation."""
    if backend.lifecycle is not Lifecycle.ACTIVE:
        return backend.lifecycle.value
    if backend.breaker.admits_at_s > view.now_s:
        return "failing"
    if backend.is_asleep:
        return "asleep"
    if not view.has_room(backend) or backend.is_pausing(view.now_s):
        return "saturated"
    return "probing" if backend.breaker.is_tripped else "ok"


def _predicted_s(
    runtime: Runtime, view: FleetView, terms: Mapping[Backend, ExpectedWait]
) -> dict[Backend, float]:
    """Return the corrected estimates; nothing is said of the low zone, where the model is not asked."""
    model = runtime.core.model.current
    if model is None:
        return {}
    said = {
        view.backends[number]: each for number, each in corrections(view, REFERENCE_TOKENS, model).items()
    }
    return {
        backend: terms[backend].ttft_s * math.exp(correction)
        for backend, correction in said.items()
        if terms[backend].ttft_s >= backend.low_s
    }


def _model(runtime: Runtime) -> ModelStatus | None:
    model = runtime.core.model.current
    if model is None:
        return None
    manifest = model.manifest
    return ModelStatus(
        version=manifest.model_version,
        trained_at=manifest.trained_at,
        promised_error=model.promised_error,
        median_relative_error=manifest.held_out_errors.median_relative_error,
        accepted=runtime.core.model.accepted,
        refused=runtime.core.model.refused,
        last_refusal=runtime.core.model.last_refusal,
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
