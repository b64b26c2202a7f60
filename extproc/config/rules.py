"""From the configuration to the rules that the core is made with."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from extproc.config.stages import Config
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.fleet_rules import FleetRules
from extproc.policy.decide import PolicyRules
from extproc.request.header_rules import HeaderRules
from extproc.routing.core import CoreRules

_ANY_BACKEND = {"name": "any", "url": "http://127.0.0.1:1"}


def backends(config: Config) -> tuple[Endpoint, ...]:
    """Return all backends that are listed; none where they are found by discovery."""
    return tuple(listed.endpoint for listed in config.backends)


def core_rules(config: Config) -> CoreRules:
    """Return all that the core has to know of the configuration."""
    is_queueing = config.admission.mode == "queue"
    fleet = FleetRules(
        saturation=config.guard.saturation(is_queueing=is_queueing),
        waiting=config.guard.waiting(),
        breaker=config.breaker,
        trust=config.predict,
        stale_after_s=config.scrape.stale_after_s,
        low_s=config.zones.low_s,
    )
    return CoreRules(
        fleet=fleet,
        policy=PolicyRules(
            config.predict, config.zones.low_s, config.guard.max_predicted_ttft_s, config.least_load.score
        ),
        admission=config.admission,
        queue=config.admission.queue if is_queueing else None,
        settle_s=config.envoy.settle_s,
        max_held_bytes=config.server.max_held_bytes,
        has_replicas=bool(config.replicas.hosts),
    )


def header_rules(config: Config) -> HeaderRules:
    """Return how requests' headers are read."""
    tenant_header = config.admission.queue.tenant_header
    is_traced = config.tracing.endpoint is not None
    return HeaderRules(tenant_header, config.slo, config.sessions.headers, is_traced=is_traced)


def core_rules_of_stages(stages: Mapping[str, Any]) -> CoreRules:
    """Return the rules of a configuration with these stages, all else at its default, for any backends.

    Clusters need no time to settle: there is no Envoy. Where there are several routers they report to each
    other.
    """
    config = Config.model_validate({"backends": [_ANY_BACKEND], **stages})
    return replace(core_rules(config), settle_s=0.0, has_replicas=True)
