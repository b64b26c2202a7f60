"""`guard.max_active: auto` on simulated engines; `python -m benchmarks.limits` has the whole table."""

from dataclasses import replace

import numpy as np
import pytest
from evaluated_scenarios import layered_rules, scenario

from extproc.evaluation import evaluator
from extproc.evaluation.evaluator import evaluate
from extproc.evaluation.policies.layered import Layered

DURATION_S = 150.0


def settled(fleet: str, load: float, mode: str, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Each backend's median limit in the second half of a run."""
    scene = scenario(fleet, load=load, duration_s=DURATION_S)
    scene = replace(scene, layered=layered_rules(max_active="auto", admission={"mode": mode}))
    seen: list[list[int]] = []

    class Watched(Layered):
        def ended(self, request, now_s):
            super().ended(request, now_s)
            if now_s > DURATION_S / 2:
                seen.append(self.limits)

    def make(setting):
        return Watched([server.spec.name for server in setting.servers], setting.layered, setting.rng)

    monkeypatch.setattr(evaluator, "POLICIES", {"watched": make})
    evaluate(scene, "watched", seed=1)
    return np.median(seen, axis=0).tolist()


@pytest.mark.parametrize("mode", ["reject", "queue"])
@pytest.mark.parametrize(
    ("fleet", "backends", "places"), [("equal", 3, 8), ("local", 3, 8), ("a100-8b*1:32", 1, 32)]
)
def test_the_limit_settles_at_what_the_engine_runs_at_once(
    fleet: str, backends: int, places: int, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settled(fleet, 1.3, mode, monkeypatch) == pytest.approx([places] * backends, rel=0.15)
