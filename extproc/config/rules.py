"""The arguments that the parts of the core are made with, from the stages of the configuration."""

from extproc.config.discovery_stage import FoundBackends
from extproc.config.stages import Config
from extproc.fleet.backend import Endpoint
from extproc.fleet.fleet import FleetRules
from extproc.policy.policy_rules import PolicyRules
from extproc.routing.queue.queue_rules import QueueRules
from extproc.routing.router import RouterRules


def backends(config: Config) -> tuple[Endpoint, ...]:
    """Return all backends that are listed; none where they are found by discovery."""
    return tuple(listed.endpoint for listed in config.backends)


def fleet_rules(config: Config) -> FleetRules:
    """Return when backends are saturated, failing, unknown, and in which zone."""
    return FleetRules(
        saturation=config.guard.saturation(is_filled_up=config.admission.mode == "queue"),
        waiting=config.guard.waiting(),
        breaker=config.breaker,
        stale_after_s=config.scrape.stale_after_s,
        low_s=config.zones.low_s,
        medium_load=config.zones.medium_load,
    )


def router_rules(config: Config) -> RouterRules:
    """Return how the layers decide."""
    policy = PolicyRules(
        is_predict_enabled=config.predict.is_enabled,
        max_predicted_ttft_s=config.guard.max_predicted_ttft_s,
        tie_fraction=config.predict.tie_fraction,
        max_candidates=config.predict.max_candidates,
    )
    return RouterRules(policy, config.admission)


def queue_rules(config: Config) -> QueueRules | None:
    """Return which requests wait, and for how long; None where none does."""
    return config.admission.queue if config.admission.mode == "queue" else None


def empty_grace_s(config: Config) -> float:
    """Return for how long an empty answer of discovery is doubted; a list is never."""
    return config.discovery.empty_grace_s if isinstance(config.discovery, FoundBackends) else 0.0
