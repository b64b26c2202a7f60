"""Backends that join, leave and fail while an evaluation goes on."""

import pytest
from support.evaluated_scenarios import scenario

from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.fleet_changes import NOTICED_AFTER_S
from extproc.lab.evaluation.result import PolicyRun
from extproc.lab.rivals.choice import POLICIES

MACHINE = "a100-8b*1:8:16384"


def run(fleet: str, policy: str = "least-in-flight", load: float = 0.5, routers: int = 1) -> PolicyRun:
    return evaluate(scenario(fleet, load, duration_s=40.0, routers=routers), policy, seed=5)


def test_a_backend_takes_requests_from_when_it_joins_until_it_leaves() -> None:
    always, early, late, brief = run(f"{MACHINE},{MACHINE}@-10,{MACHINE}@30-,{MACHINE}@15-25").backends
    assert always.requests > 2 * max(early.requests, late.requests, brief.requests)
    assert min(early.requests, late.requests, brief.requests) > 10


def test_a_backend_that_leaves_finishes_its_requests() -> None:
    result = run(f"{MACHINE},{MACHINE}@-10")
    assert result.failed == 0
    assert sum(backend.requests for backend in result.backends) == result.requests


@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_is_answered_refused_or_failed_once(policy: str) -> None:
    result = run(f"2x{MACHINE},{MACHINE}!10-25,{MACHINE}@20-,{MACHINE}@-20", policy, routers=2)
    answered = sum(backend.requests for backend in result.backends)
    assert answered + result.refused + result.failed == result.requests
    assert result.goodput <= answered / result.requests


def test_a_dead_backend_swallows_most_of_what_least_in_flight_sends_until_it_is_noticed() -> None:
    fleet = f"3x{MACHINE},{MACHINE}!10-40"
    failed = run(fleet).failed
    per_s = scenario(fleet, 0.5).traffic.rate
    assert 0.5 < failed / (NOTICED_AFTER_S * per_s) < 1.1


def test_the_production_policy_takes_a_dead_backend_out_by_itself() -> None:
    fleet = f"3x{MACHINE},{MACHINE}!10-20"
    assert run(fleet, "layered").failed < 0.1 * run(fleet).failed


def test_the_oracle_sends_nothing_to_a_dead_backend() -> None:
    scene = scenario(f"3x{MACHINE},{MACHINE}!10-20", 0.1, duration_s=40.0)
    assert evaluate(scene, "oracle", seed=5).failed <= 4  # those that were there


def test_requests_are_refused_when_no_backend_is_left() -> None:
    result = run(f"{MACHINE}@-10,{MACHINE}@-10")
    assert result.refused > 0.6 * result.requests
