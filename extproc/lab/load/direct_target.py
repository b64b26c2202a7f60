"""Servers without a router: the load generator places its requests itself, at random.

The same core and scraper as in the sidecar keep the state of a server, so the features of a sample
are those that serving would have computed at that moment. There is no guard: the point is to
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
from extproc.fleet.backend import Backend
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.signals import ScrapeRule
from extproc.fleet.view import CandidateFacts
from extproc.lab.load.completion import Reply
from extproc.lab.load.measured import Place, Sent, measured_sample
from extproc.lab.load.profiled_servers import PATIENCE_S, ServedModel
from extproc.outcomes.facts import Sample
from extproc.routing.core import Core, CoreRules

LAYER, REASON = "profile", "direct"

_SCRAPE = ScrapeRule(idle_interval_s=ScrapeRule().busy_interval_s)


class DirectTarget:
    """The servers, and what is known of them; to be had from `open_direct`."""

    def __init__(self, servers: Sequence[Endpoint], model: ServedModel, rng: np.random.Generator) -> None:
        self.model = model.name
        self.max_model_len = model.max_model_len
        self.requests_per_arrival = min(2, len(servers))
        self.core = Core(CoreRules(), rng)
        self._backends = self.core.set_members(servers, time.monotonic(), known_to_envoy=servers)
        self._rng = rng

    @property
    def running(self) -> float:
        """The gauges, as scraped last."""
        return sum(backend.running for backend in self._backends)

    def place(self) -> Sequence[Place]:
        """Reserve as many different servers as an arrival has requests, at random."""
        now_s = time.monotonic()
        numbers = self._rng.choice(len(self._backends), self.requests_per_arrival, replace=False).tolist()
        view = self.core.fleet.view([self._backends[number] for number in numbers], now_s)
        places = [_DirectPlace(backend, view.facts(backend)) for backend in view.backends]
        for place in places:
            place.backend.reserve(now_s)
        return places

    def unscraped(self) -> list[str]:
        """Return the addresses of servers whose metrics have not been read yet."""
        return [each.endpoint.address for each in self._backends if not isfinite(each.scraped_at_s)]


@dataclass(frozen=True, slots=True)
class _DirectPlace:
    backend: Backend
    known: CandidateFacts

    @property
    def url(self) -> str:
        return f"http://{self.backend.endpoint.address}"

    def end(self, sent: Sent, reply: Reply) -> Sample:
        self.backend.release(time.monotonic())
        sample = measured_sample(self.known, self.backend.name, LAYER, REASON, sent, reply)
        if sample.is_clean and sample.ttft_s is not None:
            self.backend.observed(sample.ttft_s)
        return sample


@asynccontextmanager
async def open_direct(
    servers: Sequence[Endpoint], model: ServedModel, rng: np.random.Generator
) -> AsyncIterator[DirectTarget]:
    """Scrape the servers at 10 Hz until the block ends; ProfileError where one of them has no metrics."""
    target = DirectTarget(servers, model, rng)
    is_scraped = asyncio.Event()

    def handle_scraped() -> None:
        if not target.unscraped():
            is_scraped.set()

    scraper = Scraper(_SCRAPE, target.core, handle_scraped)
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
