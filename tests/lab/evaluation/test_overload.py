"""More requests than unequal machines that no model knows can answer: what is refused, and what for."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pytest
from support.evaluated_scenarios import CONTEXT, LENGTHS, capacities_of, layered_rules, scenario, watched

from extproc.fleet.fleet_rules import LASTING_S, WaitingRule
from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.result import PolicyRun
from extproc.lab.evaluation.scenario import Scenario
from extproc.lab.rivals.layered import Layered
from extproc.lab.traffic.arrivals import Arrival, OpenLoopTraffic, Steady

OVERLOAD, CALM = 1.2, 0.6
DURATION_S = 120.0
LIMIT_S = 5.0
"""The default of `guard.max_predicted_ttft_s`."""
NEVER = WaitingRule(burst_s=1e9, standing_share=1.0)


def overloaded(routers: int = 1) -> Scenario:
    scene = scenario("local", load=OVERLOAD, duration_s=DURATION_S, routers=routers)
    return replace(scene, layered=layered_rules())


def without_refusal(scene: Scenario) -> Scenario:
    core = scene.layered.core
    policy = replace(core.policy, max_predicted_ttft_s=NEVER.burst_s)
    unlimited = replace(core, fleet=replace(core.fleet, waiting=NEVER), policy=policy)
    return replace(scene, layered=replace(scene.layered, core=unlimited))


@lru_cache
def run(routers: int = 1, is_refusing: bool = True) -> PolicyRun:
    scene = overloaded(routers)
    return evaluate(scene if is_refusing else without_refusal(scene), "layered", seed=1)


@pytest.mark.parametrize("routers", [1, 3])
def test_admitted_requests_get_their_first_token_within_the_limit(routers: int) -> None:
    ttft_s = run(routers).ttft_s(99)
    assert ttft_s is not None
    assert ttft_s <= LIMIT_S
    assert set(run(routers).decisions) - {"least_load/unheard"} == {
        "least_load/low_zone",
        "least_load/no_model",
        "reject/wait_too_long",
    }


@pytest.mark.parametrize("routers", [1, 3])
def test_refusing_some_gets_most_of_what_can_be_answered_in_time(routers: int) -> None:
    in_time, otherwise = run(routers), run(routers, is_refusing=False)
    assert otherwise.goodput < 0.3
    assert in_time.goodput > 0.9 / OVERLOAD


@pytest.mark.parametrize("routers", [1, 3])
def test_hardly_more_requests_are_refused_than_exceed_the_capacity(routers: int) -> None:
    assert run(routers).refused_share < 1 - 0.95 / OVERLOAD
    assert run(routers).utilisation > 0.95


@dataclass(frozen=True)
class Ending:
    """Overload that ends."""

    def arrivals(self, rng: np.random.Generator) -> Iterator[Arrival]:
        capacity_per_s = sum(capacities_of("local"))
        for load in (OVERLOAD, CALM):
            offset_s = 0.0 if load == OVERLOAD else DURATION_S
            traffic = OpenLoopTraffic(Steady(), load * capacity_per_s, DURATION_S, LENGTHS, CONTEXT)
            for arrival in traffic.arrivals(rng):
                yield Arrival(arrival.at_s + offset_s, arrival.prompt_tokens, arrival.output_tokens)


@pytest.mark.parametrize("routers", [1, 3])
def test_no_request_is_refused_more_than_three_seconds_after_the_overload(routers: int) -> None:
    refused_at_s: list[float] = []

    class Watched(Layered):
        def choose(self, request_id, request, candidates, now_s):
            backend = super().choose(request_id, request, candidates, now_s)
            if backend is None:
                refused_at_s.append(now_s)
            return backend

    watched(Watched, replace(overloaded(routers), traffic=Ending()))
    assert len([at_s for at_s in refused_at_s if at_s < DURATION_S]) > 100
    assert max(refused_at_s) < DURATION_S + 3.0


def test_a_burst_is_not_refused() -> None:
    """Half as many again as can be answered, for less time than makes a queue one that stands."""
    scene = scenario("local", load=1.5, duration_s=0.5 * LASTING_S)
    assert evaluate(replace(scene, layered=layered_rules()), "layered", seed=1).refused == 0


def test_a_fleet_that_can_answer_all_refuses_none_by_default() -> None:
    """A place comes free in a moment: that all are taken is no reason to refuse."""
    scene = replace(scenario("local", load=0.9, duration_s=240.0), layered=layered_rules(max_active="auto"))
    assert evaluate(scene, "layered", seed=2).refused_share < 0.01
