"""Envoy's clusters without a sidecar: beside an Envoy whose sidecars run elsewhere.

It follows discovery as each of these does, so that all give the same names to the same backends. Of requests
it knows nothing: a departing backend keeps its cluster for `settle_s`. What is in flight there then, Envoy
brings to its end all the same.
"""

import asyncio
import logging
import signal
from pathlib import Path

import numpy as np

from extproc.adapters.discovery.kinds import new_source
from extproc.adapters.discovery.membership_feed import MembershipFeed
from extproc.adapters.envoy.cluster_file import ClusterFile
from extproc.config import rules
from extproc.config.stages import load_config
from extproc.fleet.bounds import MAX_BACKENDS
from extproc.fleet.known_backends import KnownBackends
from extproc.routing.core import Core

logger = logging.getLogger(__name__)


async def write_clusters(config_path: Path) -> None:
    """Keep `envoy.cds_path` up to date until SIGTERM or SIGINT. Raises ExtprocError where it cannot start."""
    config = load_config(config_path)
    feed = MembershipFeed(
        new_source(config),
        KnownBackends(config.discovery.empty_grace_s, MAX_BACKENDS, rules.backends(config)),
        Core(rules.core_rules(config), np.random.default_rng()),
        ClusterFile(config.envoy.cds_path),
        handle_change=lambda: None,
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    feed.start()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in (feed.follow(), feed.advance())]
        await stop.wait()
        for task in tasks:
            task.cancel()
    logger.info("clusters_stopped path=%s", config.envoy.cds_path)
