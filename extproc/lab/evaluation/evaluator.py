"""A fleet, its traffic and its routers in virtual time: a discrete-event simulation, exact by seed.

Arrivals are a stream of their own. The other events, each planned by somebody for some moment, are the ends
of an engine's runs (see `lab.engine.engine`), scrapes and what they bring, backends that join, leave or fail,
and routers that look after the requests that they hold. The clock jumps from event to event; events of the
same moment come in the order in which they were planned. The traffic of a seed is the same for every policy,
so policies are compared on equal requests. What is kept does not grow with the number of requests.

A scrape sees the gauges as they are at its start, and its router learns of them `gauge_delay_s` later: it
stands for the round trip and for the lag with which vLLM updates what it exports.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import count

import msgspec
import numpy as np

from extproc.lab.evaluation.estimate_judge import EstimateJudge
from extproc.lab.evaluation.fleet_changes import FleetChanges
from extproc.lab.evaluation.result import PolicyRun
from extproc.lab.evaluation.simulated_router import SimulatedRouter
from extproc.lab.evaluation.simulated_server import Server, ServerSpec
from extproc.lab.evaluation.tally import Objectives, Tally
from extproc.lab.rivals.choice import POLICIES, NewPolicy, RivalSetting
from extproc.lab.rivals.layered import LayeredRules, decisions_of
from extproc.lab.rivals.policy import HELD, Draws
from extproc.lab.traffic.arrivals import Arrival, Traffic

PROGRESS_EVERY = 500
"""Requests between two reports of progress."""
DELAY_LIMIT_S = 2.0
"""Guessed: a first token that is so much later than it might have been is felt as late."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What every policy has to cope with; `capacities_per_s` are the servers', in requests.

    Requests that arrive before `from_s` are served, but in no figure. With `is_estimate_judged` some
    decisions of the layered policy are held against what the engines would really do (see `estimate_judge`).
    """

    servers: tuple[ServerSpec, ...]
    capacities_per_s: tuple[float, ...]
    traffic: Traffic
    routers: int
    scrape_interval_s: float
    gauge_delay_s: float
    slo_s: float
    layered: LayeredRules
    delay_limit_s: float = DELAY_LIMIT_S
    from_s: float = 0.0
    is_estimate_judged: bool = False


class _InFlight(msgspec.Struct, gc=False):
    number: int
    arrival: Arrival
    router: SimulatedRouter
    backend: int
    first_token_s: float | None = None


def evaluate(
    scenario: Scenario,
    policy: str,
    seed: int,
    report: Callable[[float], None] = lambda _: None,
    *,
    policies: Mapping[str, NewPolicy] = POLICIES,
    new_server: Callable[[ServerSpec], Server] = Server,
) -> PolicyRun:
    """Run the policy of that name until the last request has ended.

    `report` is called with the time of arrivals, in seconds.
    """
    servers = [new_server(spec) for spec in scenario.servers]
    return _Run(scenario, policy, policies[policy], servers, seed).result(report)


class _Run:
    def __init__(
        self, scenario: Scenario, name: str, new_policy: NewPolicy, servers: list[Server], seed: int
    ) -> None:
        traffic, self._spreading, *routers = np.random.default_rng(seed).spawn(2 + scenario.routers)
        self._scenario = scenario
        self._name = name
        self._seed = seed
        self._servers = servers
        self._routers = [
            SimulatedRouter(new_policy(setting), len(servers))
            for setting in (
                RivalSetting(servers, scenario.layered, rng, scenario.delay_limit_s) for rng in routers
            )
        ]
        self._may_hold = any(router.may_hold for router in self._routers)
        self._arrivals: Iterator[Arrival] = scenario.traffic.arrivals(traffic)
        self._in_flight: dict[str, _InFlight] = {}
        self._advancing: set[SimulatedRouter] = set()
        self._arrived = 0
        objectives = Objectives(scenario.slo_s, scenario.delay_limit_s, scenario.from_s)
        self._tally = Tally(self._servers, objectives)
        self._decisions_before: Counter[str] = Counter()
        self._judge: EstimateJudge | None = None
        if scenario.is_estimate_judged:
            foreseen = scenario.traffic.arrivals(copy.deepcopy(traffic))
            self._judge = EstimateJudge(servers, foreseen, scenario.from_s, seed)
        # Of each: when, which in the order of planning, and a server whose run ends or what else to do.
        self._events: list[tuple[float, int, Server | Callable[[float], None]]] = []
        self._order = count()
        self._membership = FleetChanges(self._servers, self._routers, self._fail)
        self._membership.plan(self._plan)
        self._plan_scrapes()
        if scenario.from_s > 0:
            self._plan(scenario.from_s, self._begin_counting)
        self._draws = Draws(self._spreading)

    def result(self, report: Callable[[float], None]) -> PolicyRun:
        now_s = 0.0
        for arrival in self._arrivals:
            now_s = arrival.at_s
            self._catch_up(now_s)
            self._arrive(arrival)
            if not self._arrived % PROGRESS_EVERY:
                report(now_s)
        while self._in_flight or any(router.held for router in self._routers):
            now_s = self._events[0][0]
            self._catch_up(math.nextafter(now_s, math.inf))
        if now_s < self._scenario.from_s:
            self._begin_counting(now_s)
        return self._tally.result(
            self._name,
            self._seed,
            now_s,
            self._scenario.capacities_per_s,
            decisions_of(router.policy for router in self._routers) - self._decisions_before,
            None if self._judge is None else self._judge.quality(),
        )

    def _begin_counting(self, now_s: float) -> None:
        self._tally.begin()
        self._decisions_before = decisions_of(router.policy for router in self._routers)

    def _catch_up(self, until_s: float) -> None:
        """All events before that time."""
        events = self._events
        while events and events[0][0] < until_s:
            now_s, _, event = heappop(events)
            if isinstance(event, Server):
                self._end_run(event, now_s)
            else:
                event(now_s)

    def _arrive(self, arrival: Arrival) -> None:
        routers, number = self._routers, self._arrived
        self._arrived = number + 1
        self._tally.arrived(arrival)
        router = routers[self._draws.below(len(routers))] if len(routers) > 1 else routers[0]
        now_s = arrival.at_s
        if self._judge is None:
            backend = router.choose(number, arrival, now_s)
        else:
            backend = self._judge.choose(router, number, arrival, now_s)
        if backend != HELD:
            self._send(number, arrival, router, backend, now_s)
        elif router not in self._advancing:
            self._advance(router, now_s)
        if router.held:
            self._settle(router, now_s)

    def _advance(self, router: SimulatedRouter, now_s: float) -> None:
        self._advancing.discard(router)
        again_s = router.policy.advance(now_s)
        self._settle(router, now_s)
        if again_s is not None:
            self._advancing.add(router)
            self._plan(again_s, partial(self._advance, router))

    def _settle(self, router: SimulatedRouter, now_s: float) -> None:
        """Those who are held no more go where they were sent."""
        for number, arrival, backend in router.settled():
            self._send(number, arrival, router, backend, now_s)

    def _send(
        self, number: int, arrival: Arrival, router: SimulatedRouter, backend: int | None, now_s: float
    ) -> None:
        if backend is None:
            self._tally.refused(arrival)
            return
        request = _InFlight(number, arrival, router, backend)
        server = self._servers[backend]
        if not server.is_up:
            self._fail_request(request, now_s)
            return
        request_id = str(number)
        self._in_flight[request_id] = request
        prompt_tokens, output_tokens = arrival.prompt_tokens, arrival.output_tokens
        ends_s = server.submit(request_id, prompt_tokens, output_tokens, now_s, arrival.content)
        if ends_s is not None:
            self._plan(ends_s, server)

    def _end_run(self, server: Server, now_s: float) -> None:
        if server.run_ends_s != now_s:
            return  # The run was shortened after this had been planned.
        result = server.end_run(now_s)
        for request_id in result.begun:
            request = self._in_flight[request_id]
            if request.first_token_s is None:
                request.first_token_s = now_s
                if request.router.hears_first_tokens:
                    arrival = request.arrival
                    ttft_s = now_s - arrival.at_s + server.overhead_s(arrival.prompt_tokens)
                    request.router.policy.first_token(request.number, request.backend, ttft_s, now_s)
        for request_id in result.finished:
            self._end_request(self._in_flight.pop(request_id), server, now_s)
        if (ends_s := server.run_ends_s) is not None:
            heappush(self._events, (ends_s, next(self._order), server))
        if self._may_hold and result.finished:
            self._settle_all(now_s)

    def _settle_all(self, now_s: float) -> None:
        for router in self._routers:
            if router.held:
                self._settle(router, now_s)

    def _end_request(self, request: _InFlight, server: Server, now_s: float) -> None:
        arrival, backend, first_token_s = request.arrival, request.backend, request.first_token_s
        if first_token_s is None:
            raise ValueError("a request without output tokens has no first one")
        ttft_s = first_token_s - arrival.at_s + server.overhead_s(arrival.prompt_tokens)
        server.finished(now_s - first_token_s)
        self._tally.ended(arrival, backend, ttft_s)
        request.router.ended(request.number, arrival, backend, ttft_s, now_s)

    def _fail(self, backend: int, now_s: float) -> None:
        """All requests of a backend fail at once."""
        lost = [key for key, request in self._in_flight.items() if request.backend == backend]
        for request_id in lost:
            self._fail_request(self._in_flight.pop(request_id), now_s)
        self._settle_all(now_s)

    def _fail_request(self, request: _InFlight, now_s: float) -> None:
        arrival, first_token_s = request.arrival, request.first_token_s
        self._tally.failed(arrival)
        ttft_s = None if first_token_s is None else first_token_s - arrival.at_s
        request.router.ended(request.number, arrival, request.backend, ttft_s, now_s, is_failed=True)

    def _plan_scrapes(self) -> None:
        """Every router scrapes every backend at its own moment within the interval."""
        for router in self._routers:
            if router.policy.needs_gauges:
                phases = self._spreading.uniform(0.0, self._scenario.scrape_interval_s, len(self._servers))
                for backend, phase_s in enumerate(phases.tolist()):
                    self._plan(phase_s, partial(self._scrape, router, backend))

    def _scrape(self, router: SimulatedRouter, backend: int, now_s: float) -> None:
        server = self._servers[backend]
        if server.is_up:
            seen = partial(router.scraped, backend, server.gauges(now_s))
            self._plan(now_s + self._scenario.gauge_delay_s, seen)
        else:
            router.policy.scrape_refused(backend, now_s)
        self._plan(now_s + self._scenario.scrape_interval_s, partial(self._scrape, router, backend))

    def _plan(self, at_s: float, event: Server | Callable[[float], None]) -> None:
        heappush(self._events, (at_s, next(self._order), event))
