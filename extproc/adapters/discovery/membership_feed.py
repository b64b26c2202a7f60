"""From sets of endpoints to the fleet and to Envoy's clusters: backends join, settle, drain and leave.

The only place that changes the membership, whatever kind of discovery is behind it. The clusters are written
before a new backend is chosen; where they cannot be, membership stands still. With or without a sidecar.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from extproc.adapters.condition_log import ConditionLog
from extproc.adapters.discovery.kinds import new_source
from extproc.adapters.discovery.source import BackendSource
from extproc.adapters.envoy.cluster_file import ClusterFile
from extproc.adapters.stop_signals import stop_event
from extproc.config import rules
from extproc.config.stages import load_config
from extproc.fleet.bounds import MAX_BACKENDS
from extproc.fleet.endpoint import Endpoint, KnownBackends
from extproc.fleet.peers import Peers, follow_peers, retry_peers
from extproc.routing.core import Core

logger = logging.getLogger(__name__)

INTERVAL_S = 0.25


class MembershipFeed:
    """Keeps members and cluster file at what the source finds; `is_known` is set when it has found out.

    `handle_change` follows every change of the set and every departure.
    """

    def __init__(
        self,
        source: BackendSource,
        known: KnownBackends,
        core: Core,
        clusters: ClusterFile,
        handle_change: Callable[[], None],
    ) -> None:
        self.is_known = asyncio.Event()
        self._source = source
        self._known = known
        self._core = core
        self._clusters = clusters
        self._handle_change = handle_change
        self._seen: Sequence[object] = ()
        self._peers: dict[str, Peers] = {}
        self._is_written = False
        self._writing = asyncio.Lock()
        self._publishing = ConditionLog(logger, "clusters_not_written", "clusters_written")
        self._finding = ConditionLog(logger, "discovery_doubted", "discovery_believed")
        self._fitting = ConditionLog(logger, "backends_left_out", "backends_all_used")

    @property
    def is_doubting(self) -> bool:
        """Whether discovery finds no backends, and those known before are kept."""
        return self._known.is_doubting

    def start(self) -> None:
        """Begin with what is known already; those whose clusters Envoy has may be chosen at once."""
        survivors = self._clusters.read_known()
        if not self._known.backends:
            self._known.offer(survivors, time.monotonic())
        if self._known.backends:
            self._apply(survivors)
            self.is_known.set()
            registry = self._core.registry
            peers = retry_peers(registry.members)
            if self._write(registry.clusters(), peers):
                follow_peers(registry.members, peers)

    async def follow(self) -> None:
        """Take in every set that the source finds."""
        async with aclosing(self._source.sets()) as sets:
            async for backends in sets:
                now_s = time.monotonic()
                is_changed = self._known.offer(backends, now_s)
                if is_changed:
                    self._apply()
                self._log_oddities(now_s)
                if is_changed or not self.is_known.is_set():
                    await self._settle()  # a caller that sees us ready finds the file
                    self.is_known.set()

    async def advance(self) -> None:
        """Let members settle, drain and leave as time passes."""
        while True:
            if self.is_known.is_set():
                await self._settle()
            if self._known.advance(time.monotonic()):
                self._apply()
            await asyncio.sleep(INTERVAL_S)

    async def _settle(self) -> None:
        """Publish, and let those members join and leave whose time has come."""
        if await self._publish() and self._core.advance(time.monotonic()):
            self._handle_change()
            self._apply()  # after a departure there may be room for more

    def _apply(self, known_to_envoy: Iterable[Endpoint] = ()) -> None:
        joined = self._core.set_members(self._known.backends, time.monotonic(), known_to_envoy)
        self._handle_change()
        logger.info("backends_applied backends=%d joined=%d", len(self._known.backends), len(joined))

    async def _publish(self) -> bool:
        """Return whether Envoy's file has the members' clusters.

        It is written beside the event loop, which a fleet of thousands would hold up for a second. Comparing
        the clusters of 1,000 with the written ones takes 10 ms, while the loop shares the interpreter.
        """
        async with self._writing:
            members = self._core.registry.members
            seen = [
                (each, each.endpoint, each.lifecycle, each.breaker.is_tripped, each.models)
                for each in members
            ]
            if seen != self._seen:  # of 2,048 members retry_peers takes the event loop 11 ms (measured)
                self._seen, self._peers, self._is_written = seen, retry_peers(members), False
            if self._is_written and await asyncio.to_thread(self._clusters.is_there):
                return True
            peers = self._peers
            clusters, served = self._core.registry.clusters(), {each.name: each.models for each in members}
            self._is_written = await asyncio.to_thread(self._write, clusters, peers, served)
            if self._is_written:
                follow_peers(members, peers)
            return self._is_written

    def _write(
        self,
        clusters: Sequence[Endpoint],
        peers: Mapping[str, Peers],
        served: Mapping[str, frozenset[str] | None] = MappingProxyType({}),
    ) -> bool:
        """Write the clusters, with the models that each is known to serve by now."""
        backends = [replace(each, models=served.get(each.name, each.models)) for each in clusters]
        try:
            self._clusters.write(backends, {name: each.endpoints for name, each in peers.items()})
        except OSError as error:
            self._publishing.failed(str(error), time.monotonic())
            return False
        self._publishing.holds()
        return True

    def _log_oddities(self, now_s: float) -> None:
        if self._known.is_doubting:
            detail = f"no backend found, {len(self._known.backends)} kept for a while"
            self._finding.failed(detail, now_s)
        else:
            self._finding.holds()
        if self._known.left_out:
            detail = f"{self._known.left_out} more than there is room for"
            self._fitting.failed(detail, now_s)
        else:
            self._fitting.holds()


async def write_clusters(config_path: Path) -> None:
    """Keep `envoy.cds_path` up to date until SIGTERM or SIGINT, beside an Envoy whose sidecars run elsewhere.

    It follows discovery as each of these does, so that all give the same names to the same backends. It knows
    nothing of requests: a departing backend keeps its cluster for `settle_s`, and Envoy brings what is in
    flight there to its end all the same. Raises ExtprocError where it cannot start.
    """
    config = load_config(config_path)
    feed = MembershipFeed(
        new_source(config),
        KnownBackends(config.discovery.empty_grace_s, MAX_BACKENDS, rules.backends(config)),
        Core(rules.core_rules(config), np.random.default_rng()),
        ClusterFile(config.envoy.cds_path),
        handle_change=lambda: None,
    )
    feed.start()
    with stop_event() as stop:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in (feed.follow(), feed.advance())]
            await stop.wait()
            for task in tasks:
                task.cancel()
    logger.info("clusters_stopped path=%s", config.envoy.cds_path)
