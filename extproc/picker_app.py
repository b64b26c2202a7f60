"""The picker: a sidecar whose callers are gateways of any make, by the Endpoint Picker Protocol.

All parts are those of the sidecar but the server, and there is no file of clusters: a gateway is given
addresses.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from prometheus_client.registry import Collector

from extproc.adapters.descriptors import raise_descriptor_limit
from extproc.adapters.envoy.cluster_file import ClusterFile, NoClusterFile
from extproc.adapters.envoy.picker_server import BODIES_AT_ONCE, PickerServer
from extproc.adapters.envoy.services import EnvoyServer
from extproc.adapters.http.objective_metrics import ObjectiveMetrics
from extproc.adapters.http.picker_metrics import PickerCollector
from extproc.adapters.http.state_document import Runtime
from extproc.adapters.stop_signals import stop_event
from extproc.app import Sidecar
from extproc.config import rules
from extproc.config.stages import Config
from extproc.errors import ConfigError
from extproc.exchange.gateway_exchange import GatewayExchange
from extproc.exchange.gateway_parts import GatewayParts
from extproc.exchange.request_body import CollectedBytes
from extproc.fleet.endpoint import is_ip_address
from extproc.outcomes.outcome import Outcome
from extproc.request.model_rewrite import rewritten
from extproc.routing.core import Core, CoreRules
from extproc.routing.gateway_rules import GatewayRules

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PickerSetup:
    """Besides the configuration: the address of the health service, and the pool's name for metrics.

    `adapted` returns a configuration as the options of the command change it.
    """

    health_address: str
    pool_name: str
    adapted: Callable[[Config], Config]


class Picker(Sidecar):
    """All parts of one picker, built but not started."""

    def __init__(
        self, config: Config, config_path: Path | None, setup: PickerSetup, rng: np.random.Generator
    ) -> None:
        self._setup = setup
        self._rng = rng
        self._objectives = ObjectiveMetrics()
        super().__init__(config, config_path, rng)

    def core_rules(self, config: Config) -> CoreRules:
        """Return the rules of the core; members need no time to become known to a gateway."""
        gateway = GatewayRules(config.gateway.max_endpoints)
        return replace(rules.core_rules(config), settle_s=0.0, gateway=gateway)

    def new_server(self, config: Config, core: Core) -> EnvoyServer:
        """Make the server that gateways talk to."""
        most = config.gateway.max_body_bytes
        parts = GatewayParts(
            self._objectives.timed(self.place),
            core.served_elsewhere,
            core.ratios,
            self.header_rules,
            CollectedBytes(most, BODIES_AT_ONCE * most),
            config.gateway.ends_after_request,
            partial(rewritten, self.rewrites, self._rng.random),
        )
        return PickerServer(
            config.server,
            config.gateway,
            self._setup.health_address,
            partial(GatewayExchange, parts),
            self.handle_entries,
        )

    def new_clusters(self, config: Config) -> ClusterFile:
        """Write no file."""
        return NoClusterFile()

    def collectors(self, runtime: Runtime) -> Iterable[Collector]:
        """Return the metrics that autoscalers read of a picker."""
        return (PickerCollector(runtime, self._setup.pool_name), self._objectives)

    def finished(self, outcome: Outcome) -> None:
        """Record a request that has ended, and count it by its model."""
        super().finished(outcome)
        self._objectives.ended(outcome.sample)

    def accepted(self, config: Config) -> Config:
        """Return a configuration as it counts here; raises ConfigError where there are no addresses in it."""
        require_addresses(config)
        return self._setup.adapted(config)

    async def until_stopped(self, stop: asyncio.Event) -> None:
        """Go on until the requests in flight have ended, too; what waits in the queue is let in meanwhile."""
        await stop.wait()
        logger.info("picker_draining streams=%d", self._server.open_streams)
        await self._server.drain()


def require_addresses(config: Config) -> None:
    """Raise ConfigError where a listed backend has a name or a path: gateways take IP addresses alone."""
    listed = rules.backends(config)
    below = [each.name for each in listed if each.path_prefix]
    if below:
        raise ConfigError(f"gateways change no paths, and these backends have one: {', '.join(below)}")
    named = [each.name for each in listed if not is_ip_address(each.host)]
    if named:
        raise ConfigError(
            f"gateways are given addresses, and these backends have names: {', '.join(named)}. "
            "List IP addresses, or find them by `discovery: {kind: dns, ...}`."
        )


async def pick(config: Config, config_path: Path | None, setup: PickerSetup) -> None:
    """Run a picker until SIGTERM or SIGINT. Raises ExtprocError where it cannot start."""
    require_addresses(config)
    raise_descriptor_limit()
    picker = Picker(setup.adapted(config), config_path, setup, np.random.default_rng())
    with stop_event() as stop:
        await picker.run(stop)
