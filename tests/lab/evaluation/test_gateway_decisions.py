"""`extproc evaluate` and `extproc picker` decide alike: the evaluator's requests, as a gateway's messages."""

from dataclasses import replace

import pytest
from support.evaluated_scenarios import CONTEXT, MODEL_FILE, layered_rules, scenario, watched
from support.gateway_policy import AsRead, ThroughGateway

from extproc.lab.evaluation.scenario import Scenario
from extproc.lab.rivals.policy import HELD
from extproc.lab.traffic.arrivals import Steady
from extproc.lab.traffic.conversations import Conversations
from extproc.lab.traffic.workload import Lognormal, Workload
from extproc.routing.gateway_rules import GatewayRules

TURNS = Conversations(
    curve=Steady(),
    rate=5.0,
    duration_s=30.0,
    turns=4.0,
    pause_s=3.0,
    shared_tokens=800,
    kinds=3,
    lengths=Workload(Lognormal(150, 0.6), Lognormal(40, 0.5)),
    max_model_len=CONTEXT,
)
ADMISSION = {"mode": "queue", "queue": {"max_wait_s": 3.0, "max_priority": 1}}
RULES = layered_rules(model_file=MODEL_FILE.read_bytes())
SCENES = {
    "unequal machines": scenario("local", load=0.9, duration_s=30.0),
    "conversations": replace(scenario("4xa100-8b*0.6:12:32768"), traffic=TURNS),
    "refusals": replace(scenario("equal", load=1.4, duration_s=20.0), layered=layered_rules(max_active=10)),
    "queue": replace(
        scenario("equal", load=1.4, duration_s=20.0),
        layered=layered_rules(max_active=10, admission=ADMISSION),
    ),
}

ANSWERS_BESIDES = {
    "unequal machines": set(),
    "conversations": set(),
    "refusals": {None},
    "queue": {None, HELD},
}


def for_gateways(scene: Scenario) -> Scenario:
    rules = scene.layered
    return replace(scene, layered=replace(rules, core=replace(rules.core, gateway=GatewayRules())))


@pytest.mark.parametrize("name", SCENES)
def test_the_same_requests_are_decided_alike_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extproc.adapters.envoy.gateway_calls.time", ThroughGateway.clock)
    evaluated, (by_core,) = watched(AsRead, SCENES[name])
    picked, (by_gateway,) = watched(ThroughGateway, for_gateways(SCENES[name]))
    assert len(by_core.chosen) > 100
    assert {found for _, found in by_core.chosen} - set(range(8)) == ANSWERS_BESIDES[name]
    assert by_gateway.chosen == by_core.chosen
    assert picked == evaluated
