"""Servers without a router: the load generator places its requests itself, at random.

What is known of a server is kept by the same fleet, registry and scraper as in the sidecar, so the features
of a sample are those that serving would have computed at that moment. There is no guard: the point is to
see what lies beyond saturation. With two servers or more each arrival is a pair of requests, of the same
lengths and at the same moment, for two different servers: afterwards it is known which was the faster one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import isfinite

import numpy as np

from extproc.adapters.vllm.scraper import Scraper
from extproc.errors import ProfileError
from extproc.fleet.backend import Endpoint
from extproc.fleet.fleet import Fleet, FleetRules
from extproc.fleet.registry import Registry
from extproc.fleet.signals import ScrapeRule
from extproc.fleet.view import Candidate
from extproc.lab.load.measured import Place, Sent, measured_sample
from extproc.lab.load.served_model import PATIENCE_S, ServedModel
from extproc.lab.load.stream_client import Reply
from extproc.outcomes.sample import Sample

LAYER, REASON = "profile", "direct"

_SCRAPE = ScrapeRule(idle_interval_s=ScrapeRule().busy_interval_s)


class DirectTarget:
    """The servers, and what is known of them; to be had from `open_direct`."""

    def __init__(self, backends: Sequence[Endpoint], model: ServedModel, rng: np.random.Generator) -> None:
        self.model = model.name
        self.max_model_len = model.max_model_len
        self.requests_per_arrival = min(2, len(backends))
        self.fleet = Fleet(FleetRules())
        self.registry = Registry(self.fleet, settle_s=0.0)
        self.registry.apply(backends, time.monotonic(), known_to_envoy=backends)
        self._backends = {member.slot: member.backend for member in self.registry.members}
        self._slots = list(self._backends)
        self._rng = rng

    @property
    def running(self) -> float:
        """The gauges, as scraped last."""
        return sum(self.fleet.states[slot].running for slot in self._slots)

    def place(self) -> Sequence[Place]:
        """As many different servers as an arrival has requests, at random."""
        now_s = time.monotonic()
        chosen = self._rng.choice(self._slots, self.requests_per_arrival, replace=False).tolist()
        view = self.fleet.view(chosen, now_s)
        candidates = [view.candidate(position) for position in range(len(chosen))]
        for candidate in candidates:
            self.fleet.reserve(candidate.slot, now_s)
        return [_DirectPlace(self.fleet, self._backends[known.slot], known) for known in candidates]

    def unscraped(self) -> list[str]:
        """The servers whose metrics have not been read yet."""
        return [
            backend.address
            for slot, backend in self._backends.items()
            if not isfinite(self.fleet.states[slot].scraped_at_s)
        ]


@dataclass(frozen=True, slots=True)
class _DirectPlace:
    fleet: Fleet
    backend: Endpoint
    known: Candidate

    @property
    def url(self) -> str:
        return f"http://{self.backend.address}"

    def end(self, sent: Sent, reply: Reply) -> Sample:
        self.fleet.release(self.known.slot, time.monotonic())
        sample = measured_sample(self.known, self.backend.name, LAYER, REASON, sent, reply)
        if sample.is_clean and sample.ttft_s is not None:
            self.fleet.observed(self.known.slot, sample.load, sample.ttft_s)
        return sample


@asynccontextmanager
async def open_direct(
    backends: Sequence[Endpoint], model: ServedModel, rng: np.random.Generator
) -> AsyncIterator[DirectTarget]:
    """The servers, scraped at 10 Hz until the block ends; ProfileError where one of them has no metrics."""
    target = DirectTarget(backends, model, rng)
    is_scraped = asyncio.Event()

    def scraped(*_: object) -> None:
        if not target.unscraped():
            is_scraped.set()

    scraper = Scraper(_SCRAPE, target.fleet, target.registry, scraped)
    try:
        scraper.follow()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await is_scraped.wait()
        except TimeoutError as error:
            raise ProfileError(f"no metrics from {', '.join(target.unscraped())}") from error
        yield target
    finally:
        await scraper.stop()
