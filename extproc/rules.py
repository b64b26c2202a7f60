"""From the stages of the configuration to the rules that parts of the core are made with."""

from extproc.config import (
    BackendConfig,
    BreakerConfig,
    Config,
    GuardConfig,
    PredictConfig,
    ScrapeConfig,
    ZonesConfig,
)
from extproc.config_admission import AdmissionConfig
from extproc.config_discovery import FoundBackends
from extproc.fleet.backend import Backend
from extproc.fleet.breaker import BreakerRule
from extproc.fleet.fleet import FleetRules
from extproc.fleet.saturation import SaturationRule
from extproc.learning.track_record import TrustRule
from extproc.policy.admission import AdmissionRules
from extproc.policy.queue.room import QueueRules
from extproc.policy.router import RouterRules
from extproc.policy.rules import PolicyRules


def backend(config: BackendConfig) -> Backend:
    """One vLLM server, as the registry knows it."""
    models = None if config.models is None else frozenset(config.models)
    return Backend(config.name, config.host, config.port, models, config.max_num_seqs)


def backends(config: Config) -> tuple[Backend, ...]:
    """All that are listed; none where they are found by discovery."""
    return tuple(backend(listed) for listed in config.backends)


def empty_grace_s(config: Config) -> float:
    """How long discovery that names nobody is doubted; a list never does."""
    return config.discovery.empty_grace_s if isinstance(config.discovery, FoundBackends) else 0.0


def resume_load(guard: GuardConfig, admission: AdmissionConfig) -> int:
    """The load at which a saturated backend comes back: where requests wait, as soon as one place is free."""
    return guard.max_active - 1 if admission.mode == "queue" else guard.resume_load


def fleet_rules(
    guard: GuardConfig,
    breaker: BreakerConfig,
    scrape: ScrapeConfig,
    zones: ZonesConfig,
    admission: AdmissionConfig,
) -> FleetRules:
    """When backends are saturated, failing, unknown, and in which zone."""
    return FleetRules(
        saturation=SaturationRule(guard.max_active, resume_load(guard, admission)),
        breaker=BreakerRule(
            breaker.consecutive_failures, breaker.min_pause_s, breaker.max_pause_s, breaker.probe_timeout_s
        ),
        stale_after_s=scrape.stale_after_s,
        low_s=zones.low_s,
        medium_load=zones.medium_load,
    )


def trust_rule(predict: PredictConfig) -> TrustRule:
    """When predictions are believed; the trainer has the sidecar's own rule."""
    return TrustRule(predict.error_factor, predict.error_floor, predict.min_outcomes)


def router_rules(config: Config) -> RouterRules:
    """How the layers decide."""
    predict = config.predict
    return RouterRules(
        policy=PolicyRules(
            is_predict_enabled=predict.is_enabled,
            max_predicted_ttft_s=config.guard.max_predicted_ttft_s,
            tie_fraction=predict.tie_fraction,
            max_candidates=predict.max_candidates,
        ),
        admission=AdmissionRules(
            resume_load(config.guard, config.admission), config.admission.max_retry_after_s
        ),
    )


def queue_rules(admission: AdmissionConfig) -> QueueRules | None:
    """Who waits, and for how long; None where nobody does."""
    queue = admission.queue
    if admission.mode != "queue":
        return None
    return QueueRules(queue.max_waiting, queue.max_wait_s, queue.min_priority, queue.max_priority)
