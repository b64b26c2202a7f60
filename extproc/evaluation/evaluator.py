"""A fleet, its traffic and its routers in virtual time: a discrete-event simulation, exact by seed.

There are four kinds of events: an engine's step ends, a router scrapes a backend, what it scraped arrives, a
router looks after the requests that it holds.
Arrivals are a stream of their own, merged in. The clock jumps from event to event; events of the same moment
come in the order in which they were planned. The traffic of a seed is the same for every policy, so policies
are compared on equal requests.

A scrape sees the gauges as they are at its start, and its router learns of them `gauge_delay_s` later: it
stands for the round trip and for the lag with which vLLM updates what it exports.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from heapq import heappop, heappush

import numpy as np

from extproc.evaluation.policies.choice import POLICIES, Setting
from extproc.evaluation.policies.layered import Layered, LayeredRules
from extproc.evaluation.policies.policy import HELD, Ended
from extproc.evaluation.result import RunResult
from extproc.evaluation.router import SimulatedRouter
from extproc.evaluation.server import Gauges, Server, ServerSpec
from extproc.evaluation.tally import Tally
from extproc.simulation.arrivals import Arrival, Traffic

PROGRESS_EVERY = 500
"""Requests between two reports of progress."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What every policy has to cope with; `capacities_per_s` are the servers', in requests."""

    servers: tuple[ServerSpec, ...]
    capacities_per_s: tuple[float, ...]
    traffic: Traffic
    routers: int
    scrape_interval_s: float
    gauge_delay_s: float
    slo_s: float
    layered: LayeredRules


class _Kind(IntEnum):
    STEP = 0
    SCRAPE = 1
    SCRAPED = 2
    ADVANCE = 3


@dataclass(slots=True)
class _InFlight:
    router: int
    backend: int
    arrival: Arrival
    first_token_s: float = 0.0


def evaluate(
    scenario: Scenario, policy: str, seed: int, report: Callable[[float], None] = lambda _: None
) -> RunResult:
    """Run one policy until the last request has ended; `report` is told the time of arrivals, in seconds."""
    return _Run(scenario, policy, seed).result(report)


class _Run:
    def __init__(self, scenario: Scenario, policy: str, seed: int) -> None:
        traffic, self._spreading, *routers = np.random.default_rng(seed).spawn(2 + scenario.routers)
        self._scenario = scenario
        self._name = policy
        self._seed = seed
        self._servers = [Server(spec) for spec in scenario.servers]
        self._routers = [
            SimulatedRouter(
                POLICIES[policy](Setting(self._servers, scenario.layered, rng)), len(self._servers)
            )
            for rng in routers
        ]
        self._arrivals: Iterator[Arrival] = scenario.traffic.arrivals(traffic)
        self._in_flight: dict[str, _InFlight] = {}
        self._advancing: set[int] = set()
        self._tally = Tally(len(self._servers), scenario.slo_s)
        self._events: list[tuple[float, int, _Kind, int, int, Gauges | None]] = []
        self._planned = 0
        self._plan_scrapes()

    def result(self, report: Callable[[float], None]) -> RunResult:
        now_s = 0.0
        arrival = next(self._arrivals, None)
        while arrival is not None or self._in_flight or any(router.held for router in self._routers):
            if arrival is not None and (not self._events or arrival.at_s <= self._events[0][0]):
                now_s = arrival.at_s
                self._arrive(arrival)
                arrival = next(self._arrivals, None)
                if not self._tally.requests % PROGRESS_EVERY:
                    report(now_s)
            else:
                now_s = self._handle_event()
        return self._tally.result(
            self._name, self._seed, now_s, self._servers, self._scenario.capacities_per_s, self._decisions()
        )

    def _handle_event(self) -> float:
        now_s, _, kind, backend, router, gauges = heappop(self._events)
        if kind is _Kind.STEP:
            self._step(backend, now_s)
        elif kind is _Kind.SCRAPE:
            seen, seen_at_s = self._servers[backend].gauges(), now_s + self._scenario.gauge_delay_s
            self._plan(seen_at_s, _Kind.SCRAPED, backend, router, seen)
            self._plan(now_s + self._scenario.scrape_interval_s, _Kind.SCRAPE, backend, router)
        elif kind is _Kind.ADVANCE:
            self._advance(router, now_s)
        elif gauges is not None:
            self._routers[router].scraped(backend, gauges, now_s)
        return now_s

    def _advance(self, router: int, now_s: float) -> None:
        self._advancing.discard(router)
        again_s = self._routers[router].policy.advance(now_s)
        self._settle(router, now_s)
        if again_s is not None:
            self._advancing.add(router)
            self._plan(again_s, _Kind.ADVANCE, 0, router)

    def _settle(self, router: int, now_s: float) -> None:
        """Those who are held no more go where they were sent."""
        if self._routers[router].held:
            for number, arrival, backend in self._routers[router].settled():
                self._send(number, arrival, router, backend, now_s)

    def _arrive(self, arrival: Arrival) -> None:
        number = self._tally.requests
        self._tally.requests += 1
        router = int(self._spreading.random() * len(self._routers)) if len(self._routers) > 1 else 0
        backend = self._routers[router].choose(number, arrival, arrival.at_s)
        if backend != HELD:
            self._send(number, arrival, router, backend, arrival.at_s)
        elif router not in self._advancing:
            self._advance(router, arrival.at_s)
        self._settle(router, arrival.at_s)

    def _send(self, number: int, arrival: Arrival, router: int, backend: int | None, now_s: float) -> None:
        if backend is None:
            self._tally.refused += 1
            return
        request_id = str(number)
        self._in_flight[request_id] = _InFlight(router, backend, arrival)
        server = self._servers[backend]
        if server.submit(request_id, arrival.prompt_tokens, arrival.output_tokens, now_s):
            self._plan_step(backend)

    def _step(self, backend: int, now_s: float) -> None:
        server = self._servers[backend]
        result = server.step(now_s)
        if result.ttfts_s:  # Most steps only go on with what has begun.
            for request_id in result.produced:
                self._note_first_token(request_id, now_s)
        ended = [self._end(request_id, server, now_s) for request_id in result.finished]
        self._plan_step(backend)
        for router in dict.fromkeys(ended):
            self._settle(router, now_s)

    def _note_first_token(self, request_id: str, now_s: float) -> None:
        request = self._in_flight[request_id]
        if not request.first_token_s:
            request.first_token_s = now_s
            policy = self._routers[request.router].policy
            policy.first_token(request.backend, now_s - request.arrival.at_s, now_s)

    def _end(self, request_id: str, server: Server, now_s: float) -> int:
        """A request is answered; the router that had sent it."""
        request = self._in_flight.pop(request_id)
        arrived_s = request.arrival.at_s
        ttft_s = request.first_token_s - arrived_s
        server.finished(now_s - request.first_token_s)
        self._tally.ended(request.backend, ttft_s)
        ended = Ended(int(request_id), request.arrival, request.backend, ttft_s, now_s - arrived_s)
        self._routers[request.router].ended(ended, now_s)
        return request.router

    def _plan_step(self, backend: int) -> None:
        ends_s = self._servers[backend].step_ends_s
        if ends_s is not None:
            self._plan(ends_s, _Kind.STEP, backend)

    def _plan_scrapes(self) -> None:
        """Every router scrapes every backend at its own moment within the interval."""
        for number, router in enumerate(self._routers):
            if router.policy.needs_gauges:
                phases = self._spreading.uniform(0.0, self._scenario.scrape_interval_s, len(self._servers))
                for backend, phase_s in enumerate(phases.tolist()):
                    self._plan(phase_s, _Kind.SCRAPE, backend, number)

    def _plan(
        self, at_s: float, kind: _Kind, backend: int, router: int = 0, gauges: Gauges | None = None
    ) -> None:
        self._planned += 1
        heappush(self._events, (at_s, self._planned, kind, backend, router, gauges))

    def _decisions(self) -> dict[str, int]:
        """Of all layered routers together, by layer and reason."""
        totals: dict[str, int] = {}
        policies: Sequence[object] = [router.policy for router in self._routers]
        for policy in policies:
            if isinstance(policy, Layered):
                for (layer, reason), count in policy.counts.by_reason.items():
                    name = f"{layer.value}/{reason.value}"
                    totals[name] = totals.get(name, 0) + count
        return dict(sorted(totals.items()))
