"""Builds the document of `/v1/state` from the running parts."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from extproc import __version__
from extproc.adapters.discovery.membership_feed import MembershipFeed
from extproc.adapters.discovery.source import DiscoveryCounts
from extproc.adapters.envoy.services import EnvoyServer
from extproc.adapters.files.sample_store import SampleStore
from extproc.adapters.files.trainer_sign import TrainerWatch
from extproc.adapters.http.fleet_state import (
    REFERENCE_TOKENS,
    BackendStatus,
    FleetState,
    ModelServers,
    ModelStatus,
    QueueStatus,
)
from extproc.adapters.http.recent_traffic import RecentTraffic
from extproc.adapters.http.symptoms import symptoms
from extproc.adapters.replica_link import ReplicaLink
from extproc.adapters.vllm.scraper import Scraper
from extproc.fleet.backend import Backend, Lifecycle
from extproc.fleet.view import FleetView
from extproc.fleet.wait_terms import ExpectedWait
from extproc.policy.expected_wait import estimates
from extproc.policy.predictive import corrections
from extproc.routing.core import Core
from extproc.routing.counter_reading import backend_between, between
from extproc.routing.queue.request_queue import RequestQueue

ROUTABLE = frozenset({"ok", "probing"})
"""The reasons for which a backend may be chosen."""


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
    traffic: RecentTraffic
    link: ReplicaLink | None = None
    span_counts: Callable[[], Mapping[str, int]] | None = None


def state_document(runtime: Runtime, now_s: float) -> FleetState:
    """Return the state at `now_s` (monotonic seconds)."""
    state = StateAt(runtime, now_s)
    return state.document(list(state.backends_with_traffic()))


class StateAt:
    """The state at one moment, whose backends are looked at one by one: a thousand take 20 ms."""

    def __init__(self, runtime: Runtime, now_s: float) -> None:
        self._runtime = runtime
        self._view = runtime.core.fleet.view(tuple(runtime.core.registry.members), now_s)
        self._reading = runtime.traffic.read(now_s)
        terms = estimates(self._view, REFERENCE_TOKENS, {})
        self._terms = dict(zip(self._view.backends, terms, strict=True))
        self._predicted_s = _predicted_s(runtime, self._view, self._terms)

    def backends(self) -> Iterator[BackendStatus]:
        """Yield one after the other, without its traffic."""
        return map(self._backend, self._view.backends)

    def backends_with_traffic(self) -> Iterator[BackendStatus]:
        """Yield one after the other."""
        history, reading = self._runtime.traffic.history, self._reading
        for backend in self.backends():
            yield replace(
                backend,
                last_minute=backend_between(backend.name, history.minute_ago, reading),
                since_start=backend_between(backend.name, history.start, reading),
            )

    def document(self, backends: list[BackendStatus]) -> FleetState:
        """Return the whole document, of which these are the backends."""
        runtime, now_s, reading = self._runtime, self._view.now_s, self._reading
        core, history = runtime.core, runtime.traffic.history
        counts = core.router.counts
        state = FleetState(
            backends=backends,
            model=_model(runtime),
            decisions=counts.by_layer(),
            reasons=dict(reading.decisions),
            passed_through=counts.passed_through,
            queue=None if core.queue is None else _queue(core.queue, now_s),
            draining=runtime.server.is_draining,
            version=__version__,
            uptime_s=now_s - history.start.at_s,
            last_minute=between(history.minute_ago, reading),
            since_start=between(history.start, reading),
            models=_models(core, now_s),
            replicas=None if core.replicas is None else len(core.replicas),
        )
        return replace(state, symptoms=symptoms(state))

    def _backend(self, backend: Backend) -> BackendStatus:
        view, estimate = self._view, self._terms[backend]
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
            is_routable=reason in ROUTABLE,
            reason=reason,
            predicted_ttft_s=self._predicted_s.get(backend),
            expected_s=estimate.score_s,
            observed_ttft_s=_finite(backend.observed_ttft_s),
            running_error=backend.predictions.error,
            plain_error=backend.predictions.plain_error,
            outcome_age_s=view.now_s - backend.silence.since_s if backend.ended else None,
            is_model_trusted=None
            if self._runtime.core.model.current is None
            else backend.predictions.is_trusted,
            limit=_limit(backend),
            terms_s=estimate._asdict(),
        )


def _models(core: Core, now_s: float) -> list[ModelServers]:
    waiting = {} if core.queue is None else core.queue.depths()
    return [
        ModelServers(
            name=model,
            servers=len(core.registry.candidates(model) or ()),
            servers_wanted=wanted,
            waiting=waiting.get(model, 0),
        )
        for model, wanted in core.servers_wanted(now_s).items()
    ]


def _queue(queue: RequestQueue, now_s: float) -> QueueStatus:
    return QueueStatus(
        waiting=queue.waiting,
        by_model=queue.depths(),
        oldest_s=queue.oldest_s(now_s),
        ended={ending.value: count for ending, count in sorted(queue.counts.endings.items())},
    )


def _limit(backend: Backend) -> float:
    """Return the load from which on it takes no more: its own limit, or that of its queue."""
    is_closed_sooner = backend.closed_above < backend.limits.full_above
    return math.floor(backend.closed_above) + 1 if is_closed_sooner else backend.limits.max_active


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
    log_corrections = {
        view.backends[number]: each for number, each in corrections(view, REFERENCE_TOKENS, model).items()
    }
    return {
        backend: terms[backend].ttft_s * math.exp(correction)
        for backend, correction in log_corrections.items()
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
