"""`guard.max_active: auto` on simulated engines; `python -m benchmarks.limits` has the whole table."""

from dataclasses import replace

import numpy as np
import pytest
from support.evaluated_scenarios import CONTEXT, layered_rules, scenario, watched

from benchmarks.limits import CHAT, KV_KNEE_REQUESTS, Case, closed_loop
from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.offered_load import capacities_per_s
from extproc.lab.evaluation.scenario import Scenario
from extproc.lab.evaluation.workload_text import WorkloadSpec
from extproc.lab.rivals.layered import Layered
from extproc.lab.traffic.arrivals import OpenLoopTraffic, Steady
from extproc.lab.traffic.workload import Lognormal, Mix, Workload

DURATION_S = 150.0
KV_KNEE = 39.3
"""Requests in flight at which the TTFT of that machine begins to rise: `benchmarks.limits.knee`, in 12 s."""


def with_lengths(scene: Scenario, load: float, lengths: Workload) -> Scenario:
    spec = WorkloadSpec(Steady(), 1.0, True, DURATION_S, lengths)
    capacity_per_s = sum(capacities_per_s(scene.servers, spec.sample, CONTEXT))
    return replace(
        scene, traffic=OpenLoopTraffic(Steady(), load * capacity_per_s, DURATION_S, lengths, CONTEXT)
    )


def settled(scene: Scenario, mode: str) -> list[float]:
    """Each backend's median limit in the second half of a run."""
    scene = replace(scene, layered=layered_rules(max_active="auto", admission={"mode": mode}))
    seen: list[list[int]] = []

    class Watched(Layered):
        def ended(self, request, now_s):
            super().ended(request, now_s)
            if now_s > DURATION_S / 2:
                seen.append([member.limits.max_active for member in self.core.registry.members])

    watched(Watched, scene)
    return np.median(seen, axis=0).tolist()


@pytest.mark.parametrize("mode", ["reject", "queue"])
@pytest.mark.parametrize(
    ("fleet", "backends", "places"), [("equal", 3, 8), ("local", 3, 8), ("a100-8b*1:32", 1, 32)]
)
def test_the_limit_settles_at_what_the_engine_runs_at_once(
    fleet: str, backends: int, places: int, mode: str
) -> None:
    scene = scenario(fleet, load=1.3, duration_s=DURATION_S)
    assert settled(scene, mode) == pytest.approx([places] * backends, rel=0.15)


@pytest.mark.parametrize("mode", ["reject", "queue"])
def test_prompts_that_wait_behind_long_ones_are_no_queue(mode: str) -> None:
    two_class = Workload(Mix(100, 4000, 0.1), Lognormal(64, 0.5))
    scene = with_lengths(scenario("a100-8b*1:64", duration_s=DURATION_S), 1.3, two_class)
    (limit,) = settled(scene, mode)
    assert limit >= 0.85 * 64, "it may not be found, where the wait for prompts binds before it"


@pytest.mark.parametrize("mode", ["reject", "queue"])
def test_where_kv_memory_is_the_bound_the_limit_is_what_fits_in(mode: str) -> None:
    chat = Workload(Lognormal(250, 0.9), Lognormal(64, 0.5))
    scene = with_lengths(scenario("a100-8b*1:256:16384", duration_s=DURATION_S), 0.95, chat)
    assert settled(scene, mode) == pytest.approx([KV_KNEE], rel=0.15)


def test_the_knee_is_near_what_runs_at_once_when_kv_memory_is_full() -> None:
    (spec,) = parse_fleet("a100-8b*1:256:16384")
    case = Case("KV", "", CHAT, knee_requests=KV_KNEE_REQUESTS)
    _, running = closed_loop(spec, case, in_flight=512)
    assert running == pytest.approx(KV_KNEE, rel=0.03)
