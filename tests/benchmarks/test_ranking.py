from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.recorded_traces import MOONCAKE, written

from benchmarks.evaluator import scenario
from benchmarks.ranking.__main__ import SCENARIOS, Plan, measure, predict
from benchmarks.ranking.arms import ARMS, sim_arguments
from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.simulated_vllm.vllm_options import SimOptions
from extproc.lab.traffic.arrivals import Arrival, OpenLoopTraffic
from extproc.lab.traffic.trace import Replay


def plan(name: str, duration_s: float) -> Plan:
    scene = scenario(*SCENARIOS[name], duration_s)
    assert isinstance(scene.traffic, OpenLoopTraffic)
    return Plan(scene, scene.traffic)


def arrivals(of: Plan, seed: int) -> list[Arrival]:
    return list(of.twin(seed).traffic.arrivals(np.random.default_rng()))


def test_the_twin_gets_the_traffic_of_the_seed_whatever_its_own():
    chat = plan("chat 0.7", 10.0)
    assert arrivals(chat, 1) == arrivals(chat, 1) != arrivals(chat, 2)
    assert len(arrivals(chat, 1)) == int(chat.step.rate * 10)


def test_draws_differ_in_nothing_but_what_policies_draw():
    chat = plan("two-class 0.95", 20.0)
    one, again, other = (predict(chat, dict.fromkeys(ARMS, 0.0), range(1, 2), draw) for draw in (0, 0, 1))
    assert one == again != other
    assert [run[0].requests for run in one.values()] == [run[0].requests for run in other.values()]


def test_what_a_request_takes_outside_of_the_engines_is_added_whatever_the_machine():
    chat = plan("chat 0.7", 10.0)
    added_s = [
        [spec.profile.overhead_s(500) for spec in chat.twin(1, outside_s).servers]
        for outside_s in (0.0, 0.02)
    ]
    assert added_s == [[0.0] * 3, [pytest.approx(0.02)] * 3]


def test_a_simulated_server_is_the_machine_that_the_evaluator_has():
    (spec,) = parse_fleet("l4-8b*0.6:8:16384")
    options = dict(argument.split("=") for argument in sim_arguments(spec, 8123, 0.3, 4096)[1:])
    sim = SimOptions(
        profile=options["--profile"],
        max_num_seqs=int(options["--max-num-seqs"]),
        kv_cache_tokens=int(options["--kv-cache-tokens"]),
        max_num_batched_tokens=int(options["--max-num-batched-tokens"]),
    )
    assert sim.limits() == spec.limits
    assert replace(sim.engine_profile(), speed=float(options["--speed"])) == spec.profile
    assert (options["--port"], options["--gauge-delay"]) == ("8123", "0.3")
    assert options["--max-model-len"] == "4096"


def test_a_trace_is_predicted_with_the_requests_that_are_sent(tmp_path: Path):
    name = written(tmp_path / "mooncake.jsonl", MOONCAKE)
    scene = scenario("local", f"trace:{name}@0.5")
    assert isinstance(scene.traffic, Replay)
    recorded = Plan(scene, scene.traffic)
    expected = list(scene.traffic.arrivals(np.random.default_rng()))
    requests = arrivals(recorded, 1)
    assert [each.at_s for each in requests] == pytest.approx([each.at_s for each in expected])
    assert [each.prompt_tokens for each in requests] == [each.prompt_tokens for each in expected]
    assert requests[0].content[:64] == requests[2].content[:64]


@pytest.mark.long
def test_every_arm_answers_what_is_predicted_that_it_gets():
    chat = plan("chat 0.7", 3.0)
    measurement, _ = measure(chat, seed=1)
    expected = len(arrivals(chat, 1))
    assert {name: run.requests for name, run in measurement.figures.items()} == dict.fromkeys(ARMS, expected)
    assert [run.failed for run in measurement.figures.values()] == [0, 0, 0]
