"""A policy that refuses what it is told to, and a request that comes back to it."""

from collections.abc import Sequence
from dataclasses import replace

from support.evaluated_scenarios import Given, scenario

from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.nuisances import Nuisances
from extproc.lab.evaluation.result import PolicyRun
from extproc.lab.rivals.policy import Candidate, Policy
from extproc.lab.traffic.arrivals import Arrival


class Refusing(Policy):
    """Refuses as often as there are answers, each with its `Retry-After`; then takes all requests."""

    def __init__(self, answers: list[float | None]) -> None:
        self._answers = list(answers)
        self.asked_at_s: list[float] = []

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        self.asked_at_s.append(now_s)
        return None if self._answers else 0

    def retry_after_s(self, request_id: int) -> float | None:
        return self._answers.pop(0)


def tried(policy: Refusing, retries: int) -> tuple[PolicyRun, Refusing]:
    scene = replace(scenario(), traffic=Given((Arrival(1.0, 100, 10),)), nuisances=Nuisances(retries=retries))
    return evaluate(scene, "refusing", 1, policies={"refusing": lambda _: policy}), policy
