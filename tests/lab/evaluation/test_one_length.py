"""Prompts of one length, as load tests have them: how prompts differ then tells nothing of a token's time."""

from dataclasses import replace

import pytest
from support.evaluated_scenarios import CONTEXT, layered_rules, scenario

from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.offered_load import capacities_per_s
from extproc.lab.evaluation.workload_text import WorkloadSpec
from extproc.lab.traffic.arrivals import OpenLoopTraffic, Steady
from extproc.lab.traffic.workload import Fixed, Workload

DURATION_S = 80.0


@pytest.mark.parametrize(
    ("fleet", "prompt", "output", "load"),
    [
        ("4xa100-8b*1:256", 1000, 100, 0.9),
        ("2xa100-8b*1:256,2xa100-8b*0.5:256", 1000, 100, 0.85),
        ("3xa100-8b*1:256,2xa100-8b*0.5:256,1xl4-8b*1:256", 400, 200, 0.8),
    ],
)
def test_all_first_tokens_come_within_a_second_below_capacity(
    fleet: str, prompt: int, output: int, load: float
) -> None:
    servers, lengths = parse_fleet(fleet), Workload(Fixed(prompt), Fixed(output))
    sample = WorkloadSpec(Steady(), 1.0, True, DURATION_S, lengths).sample
    rate = load * sum(capacities_per_s(servers, sample, CONTEXT))
    traffic = OpenLoopTraffic(Steady(), rate, DURATION_S, lengths, CONTEXT)
    scene = replace(scenario(), servers=servers, traffic=traffic, layered=layered_rules(max_active="auto"))
    run = evaluate(replace(scene, capacities_per_s=capacities_per_s(servers, sample, CONTEXT)), "layered", 1)
    ttft_s = run.ttft_s(99)
    assert ttft_s is not None
    assert ttft_s < 1.0
    assert not any(decision.startswith("reject") for decision in run.decisions)
