"""The scrapes of an evaluation: every router reads every backend's gauges, at its own moments.

A scrape sees the gauges as they are at its start, and its router learns of them `gauge_delay_s` later: it
stands for the round trip and for the lag with which vLLM updates what it exports.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from extproc.lab.evaluation.simulated_router import SimulatedRouter
from extproc.lab.evaluation.simulated_server import Gauges, Server

Event = Callable[[float], None]


class Exporter:
    """One server's `/metrics`, which may stand still from one scrape to the end of a span."""

    def __init__(self, server: Server, frozen_until_s: Callable[[float], float]) -> None:
        self.server = server
        self._frozen_until_s = frozen_until_s
        self._kept: Gauges | None = None
        self._kept_until_s = 0.0

    def gauges(self, now_s: float) -> Gauges:
        """Return what a scrape reads now."""
        if self._kept is not None and now_s < self._kept_until_s:
            return self._kept
        gauges, self._kept = self.server.gauges(now_s), None
        if (until_s := self._frozen_until_s(now_s)) > now_s:
            self._kept, self._kept_until_s = gauges, until_s
        return gauges


@dataclass(frozen=True, slots=True)
class Scrapes:
    """Plans the scrapes of all routers that need gauges, each within the interval at a moment drawn."""

    _exporters: Sequence[Exporter]
    _interval_s: float
    _delay_s: float
    _plan: Callable[[float, Event], None]

    def begin(self, routers: Sequence[SimulatedRouter], rng: np.random.Generator) -> None:
        """Plan the first scrape of each."""
        for router in routers:
            if router.policy.needs_gauges:
                phases = rng.uniform(0.0, self._interval_s, len(self._exporters))
                for backend, phase_s in enumerate(phases.tolist()):
                    self._plan(phase_s, partial(self._scrape, router, backend))

    def _scrape(self, router: SimulatedRouter, backend: int, now_s: float) -> None:
        exporter = self._exporters[backend]
        if (awake_s := router.awake_s(now_s)) > now_s:
            self._plan(awake_s, partial(self._scrape, router, backend))
            return
        if exporter.server.is_up:
            read = partial(self._read, router, backend, exporter.gauges(now_s))
            self._plan(now_s + self._delay_s, read)
        else:
            router.policy.scrape_refused(backend, now_s)
        self._plan(now_s + self._interval_s, partial(self._scrape, router, backend))

    def _read(self, router: SimulatedRouter, backend: int, gauges: Gauges, now_s: float) -> None:
        if (awake_s := router.awake_s(now_s)) > now_s:
            self._plan(awake_s, partial(self._read, router, backend, gauges))
        else:
            router.scraped(backend, gauges, now_s)
