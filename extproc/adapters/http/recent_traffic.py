"""Ends a step of the traffic's history every five seconds, from the counters that `/metrics` has."""

import asyncio
import time

from extproc.adapters.http.fleet_state import TrafficSteps
from extproc.routing.core import Core
from extproc.routing.counter_reading import CounterReading, read_counters
from extproc.routing.traffic_history import STEP_S, TrafficHistory


class RecentTraffic:
    """The history of a core's traffic, which begins now."""

    def __init__(self, core: Core, now_s: float) -> None:
        self.history = TrafficHistory(now_s)
        self._core = core

    async def follow(self) -> None:
        """Follow the counters for good."""
        while True:
            await asyncio.sleep(STEP_S)
            self.history.end_step(self.read(time.monotonic()))

    def read(self, now_s: float) -> CounterReading:
        """Read the counters as they are now."""
        return read_counters(self._core.router.counts, self._core.feedback.counts, now_s)

    def steps(self, now_s: float) -> TrafficSteps:
        """Return the document of `/v1/history`."""
        return TrafficSteps(ended_s_ago=now_s - self.history.ended_s, steps=self.history.steps)
