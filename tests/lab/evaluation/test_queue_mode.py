"""Half as many requests again as the fleet can answer, in virtual time, and a router that holds them."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pytest
from msgspec.structs import replace as with_fields
from support.evaluated_scenarios import MODEL_FILE, layered_rules, scenario, watched

from extproc.lab.evaluation.result import PolicyRun
from extproc.lab.evaluation.scenario import Scenario
from extproc.lab.rivals.layered import Layered
from extproc.lab.rivals.policy import HELD, Ended
from extproc.lab.traffic.arrivals import Arrival, Traffic
from extproc.routing.queue.wait_counts import WAIT_BOUNDS_S

OVERLOAD, DURATION_S, SETTLED_S = 1.5, 120.0, 20.0
LIMIT_S = 5.0
"""The limit of the wait, at the router and at the server together."""
MAX_WAIT_S = 5.0
"""One of the histogram's bounds."""
TENANTS = (("modest", 0.27), ("eager", 0.27), ("greedy", 0.46))


@dataclass(frozen=True)
class Labelled:
    """Traffic, and for whom each request is."""

    traffic: Traffic
    label: Callable[[Arrival, float], Arrival]

    def arrivals(self, rng: np.random.Generator) -> Iterator[Arrival]:
        labels = np.random.default_rng(0)
        return (self.label(arrival, labels.random()) for arrival in self.traffic.arrivals(rng))


def unlabelled(arrival: Arrival, _: float) -> Arrival:
    return arrival


def for_tenants(arrival: Arrival, draw: float) -> Arrival:
    modest, eager = TENANTS[0][1], TENANTS[0][1] + TENANTS[1][1]
    tenant = "modest" if draw < modest else "eager" if draw < eager else "greedy"
    return with_fields(arrival, tenant=tenant)


def by_priority(arrival: Arrival, draw: float) -> Arrival:
    return with_fields(arrival, priority=int(draw < 0.3))


@dataclass(frozen=True)
class Run:
    result: PolicyRun
    policies: tuple["Watched", ...]

    @property
    def answered(self) -> list[Ended]:
        return [request for policy in self.policies for request in policy.requests]

    def in_steady_state(self) -> list[Ended]:
        """What was answered while requests came, but for the time until the line was long."""
        return [
            request
            for request in self.answered
            if SETTLED_S <= request.arrival.at_s + request.duration_s < DURATION_S
        ]


class Watched(Layered):
    """Keeps what it was told."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.requests: list[Ended] = []
        self.sent: list[int] = []

    def choose(self, request_id, request, candidates, now_s):
        backend = super().choose(request_id, request, candidates, now_s)
        self._note(request_id, backend)
        return backend

    def settled(self):
        settled = super().settled()
        for request_id, backend in settled:
            self._note(request_id, backend)
        return settled

    def _note(self, request_id: int, backend: int | None) -> None:
        if backend not in {None, HELD}:
            self.sent.append(request_id)

    def ended(self, request: Ended, now_s: float) -> None:
        self.requests.append(request)
        super().ended(request, now_s)


def queueing(scene: Scenario, **queue: object) -> Scenario:
    admission = {"mode": "queue", "queue": {"max_wait_s": MAX_WAIT_S, "max_priority": 1, **queue}}
    rules = layered_rules(
        max_active=12, limit_s=LIMIT_S, model_file=MODEL_FILE.read_bytes(), admission=admission
    )
    return replace(scene, layered=rules)


@lru_cache
def run(label: Callable[[Arrival, float], Arrival], fleet: str = "equal", routers: int = 1) -> Run:
    scene = queueing(scenario(fleet, load=OVERLOAD, duration_s=DURATION_S, routers=routers))
    return Run(*watched(Watched, replace(scene, traffic=Labelled(scene.traffic, label))))


@pytest.mark.parametrize("fleet", ["equal", "local"])
@pytest.mark.parametrize("label", [for_tenants, by_priority])
def test_goodput_is_nearly_all_that_the_fleet_can_answer(label, fleet: str) -> None:
    done = run(label, fleet)
    scene = scenario(fleet)
    per_s = len(done.in_steady_state()) / (DURATION_S - SETTLED_S)
    assert per_s >= 0.95 * sum(scene.capacities_per_s)
    assert done.result.refused > 0.2 * done.result.requests


@pytest.mark.parametrize("fleet", ["equal", "local"])
def test_no_admitted_request_had_waited_past_its_deadline(fleet: str) -> None:
    for policy in run(for_tenants, fleet).policies:
        assert policy.core.queue is not None
        waits = dict(zip((*WAIT_BOUNDS_S, float("inf")), policy.core.queue.counts.waits.counts, strict=True))
        assert waits[MAX_WAIT_S] > 100, "the line was long"
        assert not any(count for bound_s, count in waits.items() if bound_s > MAX_WAIT_S)


@pytest.mark.parametrize("fleet", ["equal", "local"])
def test_tenants_get_equal_shares(fleet: str) -> None:
    served = Counter(request.arrival.tenant for request in run(for_tenants, fleet).in_steady_state())
    for tenant, _ in TENANTS:
        assert served[tenant] == pytest.approx(served.total() / len(TENANTS), rel=0.1)


@pytest.mark.parametrize("fleet", ["equal", "local"])
def test_a_high_priority_hardly_waits_and_none_is_refused(fleet: str) -> None:
    done = run(by_priority, fleet)
    high = [request.ttft_s for request in done.answered if request.arrival.priority == 1]
    low = [request.ttft_s for request in done.answered if request.arrival.priority == 0]
    assert len(high) + len(low) + done.result.refused == done.result.requests
    assert len(high) == pytest.approx(0.3 * done.result.requests, rel=0.1)
    assert np.median(high) < 0.5 * np.median(low)


def test_with_one_tenant_requests_are_sent_in_the_order_of_their_arrival() -> None:
    (policy,) = run(unlabelled).policies
    assert len(policy.sent) > 1000
    assert policy.sent == sorted(policy.sent)


def test_every_request_is_answered_or_refused_once_with_several_routers() -> None:
    done = run(for_tenants, "equal", routers=3)
    assert len(done.policies) == 3
    assert len(done.answered) + done.result.refused == done.result.requests
    assert not any(policy.core.queue is None or policy.core.queue.waiting for policy in done.policies)


def test_the_same_seed_gives_the_same_result_to_the_last_digit() -> None:
    run.cache_clear()
    first = run(by_priority).result
    run.cache_clear()
    assert run(by_priority).result == first


@pytest.mark.parametrize("fleet", ["equal", "local"])
def test_the_limit_of_the_wait_holds_over_both_waits(fleet: str) -> None:
    """At the router and in queues of the servers, which may hold several times as many as they run."""
    limits = {"max_active": 40, "admission": {"mode": "queue", "queue": {"max_wait_s": 10.0}}}
    rules = layered_rules(limit_s=LIMIT_S, model_file=MODEL_FILE.read_bytes(), **limits)
    scene = replace(scenario(fleet, load=OVERLOAD, duration_s=60.0), layered=rules)
    ttfts_s = [request.ttft_s for request in Run(*watched(Watched, scene)).answered]
    own_prompt_s = 1.0
    assert np.median(ttfts_s) > 0.7 * LIMIT_S, "they wait"
    assert np.quantile(ttfts_s, 0.99) < LIMIT_S + own_prompt_s
