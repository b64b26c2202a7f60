"""A fleet, its traffic and its routers in virtual time: a discrete-event simulation, exact by seed.

Arrivals are a stream of their own. The other events, each planned for some moment, are the ends
of an engine's runs (see `lab.engine.engine`), scrapes and what they bring, backends that join, leave or fail,
and routers that look after the requests that they hold. The clock jumps from event to event; events of the
same moment come in the order in which they were planned. The traffic of a seed is the same for every policy,
so policies are compared on equal requests. The memory does not grow with the number of requests.

A client may send a request again (see `clients`). For routers and servers each attempt is a request of its
own, which arrives when it is sent; in the figures they are one, which arrived with the first.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from extproc.lab.evaluation.clients import Clients
from extproc.lab.evaluation.estimate_judge import EstimateJudge
from extproc.lab.evaluation.event_calendar import EventCalendar
from extproc.lab.evaluation.fleet_changes import FleetChanges
from extproc.lab.evaluation.reports import Reports
from extproc.lab.evaluation.result import PolicyRun
from extproc.lab.evaluation.scenario import Scenario
from extproc.lab.evaluation.scrapes import Scrapes
from extproc.lab.evaluation.simulated_router import SentRequest, SimulatedRouter
from extproc.lab.evaluation.simulated_server import Pace, Server
from extproc.lab.evaluation.tally import Objectives, Tally
from extproc.lab.evaluation.world import World
from extproc.lab.rivals.choice import POLICIES, NewPolicy, RivalSetting
from extproc.lab.rivals.layered import decisions_of
from extproc.lab.rivals.policy import HELD, Draws
from extproc.lab.traffic.arrivals import Arrival

PROGRESS_EVERY = 500
"""Requests between two reports of progress."""


def evaluate(
    scenario: Scenario,
    policy: str,
    seed: int,
    report: Callable[[float], None] = lambda _: None,
    *,
    policies: Mapping[str, NewPolicy] = POLICIES,
    pace: Pace | None = None,
) -> PolicyRun:
    """Run the policy of that name until the last request has ended.

    `report` is called with the time of arrivals, in seconds. A `pace` is that of every machine.
    """
    return _Simulation(scenario, policy, policies[policy], seed, pace).result(report)


class _Simulation:
    def __init__(
        self, scenario: Scenario, name: str, new_policy: NewPolicy, seed: int, pace: Pace | None
    ) -> None:
        traffic, self._spreading, *routers = np.random.default_rng(seed).spawn(2 + scenario.routers)
        world = World(scenario, seed, pace)
        self._scenario, self._name, self._seed = scenario, name, seed
        self._servers = servers = world.servers
        self._routers = [
            SimulatedRouter(new_policy(setting), len(servers), world.awake_s())
            for setting in (
                RivalSetting(servers, scenario.layered, rng, scenario.delay_limit_s) for rng in routers
            )
        ]
        self._noise = world.noise
        self._may_hold = any(router.may_hold for router in self._routers)
        self._arrivals: Iterator[Arrival] = scenario.traffic.arrivals(traffic)
        self._in_flight: dict[str, SentRequest] = {}
        self._advancing: set[SimulatedRouter] = set()
        self._calendar = calendar = EventCalendar(self._end_run)
        self._catch_up, self._plan = calendar.catch_up, calendar.plan
        objectives = Objectives(scenario.slo_s, scenario.delay_limit_s, scenario.from_s)
        self._tally = Tally(servers, objectives)
        self._clients = Clients(
            scenario.nuisances.retries, world.clients, self._tally, self._plan, self._reach_router
        )
        self._decisions_before: Counter[str] = Counter()
        self._judge: EstimateJudge | None = None
        if scenario.judged:
            foreseen = scenario.traffic.arrivals(copy.deepcopy(traffic))
            self._judge = EstimateJudge(servers, foreseen, scenario.from_s, seed, scenario.judged)
        self._begin(world)

    def _begin(self, world: World) -> None:
        """Plan all that does not come of a request."""
        scenario, plan = self._scenario, self._plan
        FleetChanges(self._servers, self._routers, self._fail).plan(plan)
        scrapes = Scrapes(world.exporters, scenario.scrape_interval_s, scenario.gauge_delay_s, plan)
        scrapes.begin(self._routers, self._spreading)
        Reports(self._routers, plan).begin()
        if scenario.from_s > 0:
            plan(scenario.from_s, self._begin_counting)
        self._draws = Draws(self._spreading)

    def result(self, report: Callable[[float], None]) -> PolicyRun:
        now_s = 0.0
        for number, arrival in enumerate(self._arrivals, start=1):
            now_s = arrival.at_s
            self._catch_up(now_s)
            self._clients.arrived(arrival)
            if not number % PROGRESS_EVERY:
                report(now_s)
        while self._clients.open:
            now_s = self._calendar.next_s
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

    def _reach_router(self, number: int, arrival: Arrival, now_s: float) -> None:
        routers = self._routers
        router = routers[self._draws.below(len(routers))] if len(routers) > 1 else routers[0]
        self._deliver(router, partial(self._place, number, arrival, router), now_s)

    def _deliver(self, router: SimulatedRouter, event: Callable[[float], None], now_s: float) -> None:
        """Have a router handle something now, or once it does not stand still any more."""
        if (awake_s := router.awake_s(now_s)) > now_s:
            self._plan(awake_s, partial(self._hear_late, router, event))
        else:
            event(now_s)

    def _hear_late(self, router: SimulatedRouter, event: Callable[[float], None], now_s: float) -> None:
        event(now_s)
        if router.held:
            self._settle(router, now_s)

    def _place(self, number: int, arrival: Arrival, router: SimulatedRouter, now_s: float) -> None:
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
        if (awake_s := router.awake_s(now_s)) > now_s:
            self._plan(awake_s, partial(self._advance, router))
            return
        self._advancing.discard(router)
        again_s = router.policy.advance(now_s)
        self._settle(router, now_s)
        if again_s is not None:
            self._advancing.add(router)
            self._plan(again_s, partial(self._advance, router))

    def _settle(self, router: SimulatedRouter, now_s: float) -> None:
        """Send the requests that are no longer held where they were placed."""
        for number, arrival, backend in router.settled():
            self._send(number, arrival, router, backend, now_s)

    def _send(
        self, number: int, arrival: Arrival, router: SimulatedRouter, backend: int | None, now_s: float
    ) -> None:
        if backend is None:
            self._clients.refused(number, arrival, router.policy.retry_after_s(number), now_s)
            return
        request = SentRequest(number, arrival, router, backend, now_s, self._noise())
        server = self._servers[backend]
        if not server.is_up:
            self._fail_request(request, now_s)
            return
        request_id = str(number)
        self._in_flight[request_id] = request
        prompt_tokens, output_tokens = arrival.prompt_tokens, arrival.output_tokens
        ends_s = server.submit(
            request_id, prompt_tokens, output_tokens, now_s, arrival.content, arrival.adapter
        )
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
                    self._hear_first_token(request, server, now_s)
        for request_id in result.finished:
            self._end_request(self._in_flight.pop(request_id), server, now_s)
        if (ends_s := server.run_ends_s) is not None:
            self._plan(ends_s, server)
        if self._may_hold and result.finished:
            self._settle_all(now_s)

    def _settle_all(self, now_s: float) -> None:
        for router in self._routers:
            if router.held:
                self._settle(router, now_s)

    def _hear_first_token(self, request: SentRequest, server: Server, now_s: float) -> None:
        arrival, policy = request.arrival, request.router.policy
        overhead_s = server.overhead_s(arrival.prompt_tokens)
        ttft_s = now_s - arrival.at_s + overhead_s + request.late_s(now_s, overhead_s)
        self._deliver(
            request.router, partial(policy.first_token, request.number, request.backend, ttft_s), now_s
        )

    def _end_request(self, request: SentRequest, server: Server, now_s: float) -> None:
        arrival, backend, first_token_s = request.arrival, request.backend, request.first_token_s
        if first_token_s is None:
            raise ValueError("a request without output tokens has no first one")
        overhead_s = server.overhead_s(arrival.prompt_tokens)
        late_s = request.late_s(first_token_s, overhead_s)
        ttft_s = first_token_s - arrival.at_s + overhead_s + late_s
        server.finished(now_s - first_token_s)
        self._clients.answered(request.number, arrival, backend, ttft_s)
        router = request.router
        ended = partial(router.ended, request.number, arrival, backend, ttft_s, False, now_s + late_s)
        self._deliver(router, ended, now_s)

    def _fail(self, backend: int, now_s: float) -> None:
        """Fail all requests of a backend at once."""
        lost = [key for key, request in self._in_flight.items() if request.backend == backend]
        for request_id in lost:
            self._fail_request(self._in_flight.pop(request_id), now_s)
        self._settle_all(now_s)

    def _fail_request(self, request: SentRequest, now_s: float) -> None:
        number, arrival, first_token_s = request.number, request.arrival, request.first_token_s
        ttft_s = None if first_token_s is None else first_token_s - arrival.at_s
        self._clients.failed(number, arrival, first_token_s is not None, now_s)
        ended = partial(request.router.ended, number, arrival, request.backend, ttft_s, True, now_s)
        self._deliver(request.router, ended, now_s)
