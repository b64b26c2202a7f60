"""Prompts of one length, as load tests have them: how prompts differ then tells nothing of a token's time."""

import pytest
from support.evaluated_scenarios import offered_scenario

from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.workload_text import WorkloadSpec
from extproc.lab.traffic.arrivals import Steady
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
    spec = WorkloadSpec(Steady(), load, True, DURATION_S, Workload(Fixed(prompt), Fixed(output)))
    run = evaluate(offered_scenario(spec, parse_fleet(fleet)), "layered", 1)
    ttft_s = run.ttft_s(99)
    assert ttft_s is not None
    assert ttft_s < 1.0
    assert not any(decision.startswith("reject") for decision in run.decisions)
