"""The sidecar: the one place where adapters are wired to the core.

Nothing here decides anything. `serve` builds the parts from the configuration, starts the servers and the
watches, waits for SIGTERM or SIGINT, and drains.
"""

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client.registry import Collector

from extproc.adapters.condition_log import ConditionLog
from extproc.adapters.descriptors import raise_descriptor_limit
from extproc.adapters.discovery.kinds import new_pool_rules, new_source
from extproc.adapters.discovery.membership_feed import MembershipFeed
from extproc.adapters.drift_log import DriftLog
from extproc.adapters.envoy.cluster_file import ClusterFile
from extproc.adapters.envoy.grpc_server import GrpcServer
from extproc.adapters.envoy.services import EnvoyServer
from extproc.adapters.envoy.thin_server import ThinServer
from extproc.adapters.files.followed_files import ConfigWatch, follow_model
from extproc.adapters.files.sample_store import SampleStore
from extproc.adapters.files.trainer_sign import TrainerWatch
from extproc.adapters.http.http_server import HttpServer
from extproc.adapters.http.recent_traffic import RecentTraffic
from extproc.adapters.http.state_document import Runtime
from extproc.adapters.idle_collection import collect_when_idle, freeze_startup_objects
from extproc.adapters.replica_link import ReplicaLink
from extproc.adapters.stop_signals import stop_event
from extproc.adapters.vllm.model_asking import follow_searches
from extproc.adapters.vllm.scraper import Scraper
from extproc.config import rules
from extproc.config.environment import usual_api_key
from extproc.config.stages import Config, load_config
from extproc.config.tracing_stage import TracingConfig
from extproc.errors import ConfigError
from extproc.exchange.exchange import Exchange
from extproc.fleet.bounds import MAX_BACKENDS
from extproc.fleet.endpoint import KnownBackends
from extproc.outcomes.outcome import LogEntry, Outcome
from extproc.request.model_rewrite import ModelRewrites
from extproc.routing.core import Core, CoreRules
from extproc.routing.queue.request_queue import RequestQueue

if TYPE_CHECKING:
    from extproc.adapters.tracing.decision_tracing import DecisionTracing

logger = logging.getLogger(__name__)

SERVERS: Mapping[str, type[ThinServer | GrpcServer]] = {"thin": ThinServer, "grpcio": GrpcServer}
"""The server that Envoy talks to, by `server.transport`."""


class Sidecar:
    """All parts of one sidecar, built but not started; without a `config_path` no file is followed."""

    def __init__(self, config: Config, config_path: Path | None, rng: np.random.Generator) -> None:
        self._config = config
        self._config_path = config_path
        number = int(rng.integers(1 << 61))
        self._core = core = Core(self.core_rules(config), rng, number)
        self._link = None if core.replicas is None else ReplicaLink(config.replicas, core.replicas, number)
        self._drift = DriftLog(core)
        self._learning = ConditionLog(logger, "entry_failed")
        self._scraper = Scraper(config.scrape, core, usual_key=usual_api_key(os.environ))
        self._tracing = _new_tracing(config.tracing, core, rng)
        self.place = core.place if self._tracing is None else self._tracing.place
        self.header_rules = rules.header_rules(config)
        self.rewrites = ModelRewrites()
        self._server = self.new_server(config, core)
        self._samples: SampleStore | None = None
        self._trainer = TrainerWatch(config.model.path)
        self._traffic = RecentTraffic(core, time.monotonic())
        self._source = new_source(config)
        self._pool_rules = new_pool_rules(config, self.header_rules.objectives, self.rewrites)
        self._membership = MembershipFeed(
            self._source,
            KnownBackends(config.discovery.empty_grace_s, MAX_BACKENDS, rules.backends(config)),
            core,
            self.new_clusters(config),
            self._handle_change,
        )

    def core_rules(self, config: Config) -> CoreRules:
        """Return the rules of the core."""
        return rules.core_rules(config)

    def new_server(self, config: Config, core: Core) -> EnvoyServer:
        """Make the server that Envoy talks to."""
        new_exchange = partial(Exchange, self.place, core.ratios, self.header_rules, core.bodies)
        return SERVERS[config.server.transport](config.server, new_exchange, self.handle_entries)

    def new_clusters(self, config: Config) -> ClusterFile:
        """Make the file of Envoy's clusters."""
        return ClusterFile(config.envoy.cds_path)

    def collectors(self, runtime: Runtime) -> Iterable[Collector]:
        """Return what `/metrics` has besides the sidecar's own."""
        return ()

    def accepted(self, config: Config) -> Config:
        """Return a configuration as it counts here; raises ConfigError where it is none for this process."""
        return config

    async def until_stopped(self, stop: asyncio.Event) -> None:
        """Go on until the end is near; everything is followed until then."""
        await stop.wait()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain. A watch that dies takes the process down, never silently."""
        async with AsyncExitStack() as stack:
            if self._config.samples.path is not None:
                later = asyncio.get_running_loop().call_later
                self._samples = SampleStore.open(
                    self._config.samples.path, self._config.samples.max_rows, later
                )
                stack.callback(self._samples.close)
            stack.push_async_callback(self._scraper.stop)
            if self._tracing is not None:
                stack.push_async_callback(self._tracing.stop)
            self._membership.start()
            runtime = Runtime(
                core=self._core,
                scraper=self._scraper,
                server=self._server,
                samples=self._samples,
                discovery=self._source.counts,
                membership=self._membership,
                trainer=self._trainer,
                traffic=self._traffic,
                link=self._link,
                span_counts=None if self._tracing is None else self._tracing.counts,
            )
            http = HttpServer(self._config.http.address, runtime, more=self.collectors(runtime))
            await http.start()
            stack.push_async_callback(http.stop)
            await self._watch_until(stop, stack)
            logger.info("sidecar_draining streams=%d", self._server.open_streams)

    async def _serve(self, stack: AsyncExitStack) -> None:
        """Serve Envoy as soon as the backends are known; until then the sidecar is not ready."""
        await self._membership.is_known.wait()
        await self._server.start()
        stack.push_async_callback(self._server.drain)
        if self._core.queue is not None:
            stack.callback(lambda queue: queue.close(time.monotonic()), self._core.queue)
        freeze_startup_objects()
        grpc, http = self._config.server.address, self._config.http.address
        logger.info("sidecar_ready version=%s grpc=%s http=%s", version("vllm-extproc"), grpc, http)
        await asyncio.Event().wait()

    async def _watch_until(self, stop: asyncio.Event, stack: AsyncExitStack) -> None:
        membership = [self._membership.follow(), self._membership.advance()]
        watches = [self._serve(stack), self._drift.follow()]
        watches += [self._trainer.follow(), self._traffic.follow(), collect_when_idle()]
        watches.append(follow_model(self._config.model.path, self._core))
        if self._config_path is not None:
            watches.append(ConfigWatch(self._config_path, self._config, self._source, self.accepted).follow())
        watches.append(follow_searches(self._core.search, self._scraper))
        if self._link is not None:
            watches.append(self._link.follow())
        if self._core.queue is not None:
            watches.append(keep_advancing(self._core.queue))
        if self._pool_rules is not None:
            watches.append(self._pool_rules.follow())
        tasks: list[asyncio.Task[object]] = [
            asyncio.create_task(watch) for watch in (*membership, *watches, self.until_stopped(stop))
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def handle_entries(self, entries: Iterable[LogEntry]) -> None:
        """Learn from exchanges that have ended."""
        now_s = time.monotonic()
        for entry in entries:
            try:
                self._handle_entry(entry, now_s)
            except Exception as error:  # a fault of ours must not cost the other entries
                self._learning.failed(f"{type(error).__name__}: {error}", now_s)

    def _handle_entry(self, entry: LogEntry, now_s: float) -> None:
        outcome = self._core.learn(entry, now_s)
        if outcome is not None:
            self.finished(outcome)

    def finished(self, outcome: Outcome) -> None:
        """Record a request that has ended."""
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("request_finished %s", outcome.sample)
        if self._samples is not None:
            self._samples.append(outcome.sample)

    def _handle_change(self) -> None:
        """Follow the members of the fleet, after some have joined or left."""
        self._scraper.follow()
        self._drift.keep_only(frozenset(member.name for member in self._core.registry.members))


async def keep_advancing(queue: RequestQueue) -> None:
    """Follow the deadlines of all that wait, and changes that are not reported to the queue."""
    while True:
        now_s = time.monotonic()
        queue.advance(now_s)
        await asyncio.sleep(queue.due_s(now_s) - now_s)


async def serve(config_path: Path) -> None:
    """Run a sidecar until SIGTERM or SIGINT. Raises ExtprocError where it cannot start."""
    config = load_config(config_path)
    raise_descriptor_limit()
    sidecar = Sidecar(config, config_path, np.random.default_rng())
    with stop_event() as stop:
        await sidecar.run(stop)


def _new_tracing(config: TracingConfig, core: Core, rng: np.random.Generator) -> "DecisionTracing | None":
    """Return what traces decisions, None where nothing does; raises ConfigError without its packages."""
    if config.endpoint is None:
        return None
    try:
        from extproc.adapters.tracing.decision_tracing import (  # noqa: PLC0415 - an optional dependency
            DecisionTracing,
        )
    except ImportError as error:
        raise ConfigError("tracing needs more packages: pip install 'vllm-extproc[tracing]'") from error
    return DecisionTracing(config, core, rng.spawn(1)[0])
