"""From the stages of the configuration to the rules that parts of the core are made with."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from extproc.config.admission_stage import AdmissionConfig
from extproc.config.stages import (
    BackendConfig,
    Config,
    GuardConfig,
    PredictConfig,
)
from extproc.fleet.adaptive_limit import AdaptiveRule
from extproc.fleet.breaker import BreakerRule
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.fleet_rules import FleetRules
from extproc.fleet.prediction_record import TrustRule
from extproc.fleet.saturation import SaturationRule
from extproc.fleet.waiting_time import WaitingRule
from extproc.policy.decide import PolicyRules
from extproc.routing.core import CoreRules
from extproc.routing.queue.request_queue import QueueRules
from extproc.routing.refusal import AdmissionRules

_ANY_BACKEND = {"name": "any", "url": "http://127.0.0.1:1"}

RESUME_SHARE = 0.8
"""Borrowed from the deployment that this project comes from: a backend comes back at it."""

STANDING_SHARE = 0.2
"""Tried on tuning scenarios: so much of the longest wait is enough to keep a server busy."""


def backend(config: BackendConfig) -> Endpoint:
    """One vLLM server, as the registry knows it."""
    models = None if config.models is None else frozenset(config.models)
    return Endpoint(config.name, config.host, config.port, models, config.max_num_seqs)


def backends(config: Config) -> tuple[Endpoint, ...]:
    """All that are listed; none where they are found by discovery."""
    return tuple(backend(listed) for listed in config.backends)


def saturation_rule(guard: GuardConfig, admission: AdmissionConfig) -> SaturationRule:
    """When a backend is full, and when it comes back: where requests wait, as soon as one place is free."""
    is_filled_up = admission.mode == "queue"
    if guard.max_active != "auto":
        return SaturationRule(
            guard.max_active, _resume_load(guard.max_active, guard.resume_active, is_filled_up)
        )
    bounds = guard.auto
    adaptive = AdaptiveRule(bounds.min_active, bounds.max_active, 1.0 if is_filled_up else RESUME_SHARE)
    return SaturationRule(adaptive.start, adaptive.start - 1, adaptive)


def waiting_rule(guard: GuardConfig) -> WaitingRule:
    """How long a request may wait in a server. A limit that is found from queues has to see them."""
    longest_s = guard.max_predicted_ttft_s
    standing_share = 1.0 if guard.max_active == "auto" else STANDING_SHARE
    return WaitingRule(burst_s=longest_s, standing_s=standing_share * longest_s)


def _resume_load(max_active: int, resume_active: int | None, is_filled_up: bool) -> int:
    if is_filled_up:
        return max_active - 1
    return int(max_active * RESUME_SHARE) if resume_active is None else resume_active


def fleet_rules(config: Config) -> FleetRules:
    """When backends are saturated, failing, unknown, and in which zone."""
    breaker = config.breaker
    return FleetRules(
        saturation=saturation_rule(config.guard, config.admission),
        waiting=waiting_rule(config.guard),
        breaker=BreakerRule(
            breaker.consecutive_failures, breaker.min_pause_s, breaker.max_pause_s, breaker.probe_timeout_s
        ),
        stale_after_s=config.scrape.stale_after_s,
        low_s=config.zones.low_s,
        medium_load=config.zones.medium_load,
        trust=trust_rule(config.predict),
    )


def trust_rule(predict: PredictConfig) -> TrustRule:
    """When predictions are believed; the trainer has the sidecar's own rule."""
    return TrustRule(predict.error_factor, predict.error_floor, predict.min_outcomes)


def core_rules(config: Config) -> CoreRules:
    """Return all that the core has to know of the configuration."""
    predict = config.predict
    return CoreRules(
        fleet=fleet_rules(config),
        policy=PolicyRules(
            is_predict_enabled=predict.is_enabled,
            max_predicted_ttft_s=config.guard.max_predicted_ttft_s,
            tie_fraction=predict.tie_fraction,
            max_candidates=predict.max_candidates,
            score=config.least_load.score,
        ),
        admission=AdmissionRules(config.admission.max_retry_after_s),
        queue=queue_rules(config.admission),
        settle_s=config.envoy.settle_s,
    )


def queue_rules(admission: AdmissionConfig) -> QueueRules | None:
    """Who waits, and for how long; None where nobody does."""
    queue = admission.queue
    if admission.mode != "queue":
        return None
    return QueueRules(queue.max_waiting, queue.max_wait_s, queue.min_priority, queue.max_priority)


def core_rules_of_stages(stages: Mapping[str, Any]) -> CoreRules:
    """Return the rules of a configuration with these stages, all else at its default, for any backends.

    Clusters need no time to settle: there is no Envoy.
    """
    config = Config.model_validate({"backends": [_ANY_BACKEND], **stages})
    return replace(core_rules(config), settle_s=0.0)
