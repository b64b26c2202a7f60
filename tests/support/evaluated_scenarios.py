"""Small fleets and their traffic, for the tests of the evaluator."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.offered_load import capacities_per_s, offered_load
from extproc.lab.evaluation.result import PolicyRun
from extproc.lab.evaluation.scenario import Scenario
from extproc.lab.evaluation.simulated_server import ServerSpec
from extproc.lab.evaluation.trace_spec import TraceSpec
from extproc.lab.evaluation.workload_text import WorkloadSpec
from extproc.lab.rivals import layered
from extproc.lab.rivals.choice import RivalSetting
from extproc.lab.rivals.layered import Layered, LayeredRules
from extproc.lab.traffic.arrivals import Arrival, OpenLoopTraffic, Steady
from extproc.lab.traffic.workload import Lognormal, Workload

MODEL_FILE = Path(__file__).parents[2] / "models" / "zone2_predictor.json"
LENGTHS = Workload(Lognormal(250, 0.9), Lognormal(32, 0.5))
CONTEXT = 8192
LayeredKind = TypeVar("LayeredKind", bound=Layered)
NO_QUEUE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Given:
    """Exactly these requests."""

    requests: tuple[Arrival, ...]

    def arrivals(self, rng: np.random.Generator) -> Iterator[Arrival]:
        return iter(self.requests)


def layered_rules(
    *,
    max_active: int | str = 100,
    limit_s: float = 2.0,
    model_file: bytes | None = None,
    admission: Mapping[str, Any] = NO_QUEUE,
) -> LayeredRules:
    guard = {"max_active": max_active, "max_predicted_ttft_s": limit_s}
    return layered.layered_rules({"guard": guard, "admission": dict(admission)}, model_file)


@lru_cache
def capacities_of(fleet: str) -> tuple[float, ...]:
    spec = WorkloadSpec(Steady(), 1.0, True, 60.0, LENGTHS)
    return capacities_per_s(parse_fleet(fleet), spec.sample, CONTEXT)


def scenario(fleet: str = "local", load: float = 0.8, duration_s: float = 20.0, routers: int = 1) -> Scenario:
    specs = parse_fleet(fleet)
    capacities = capacities_of(fleet)
    return Scenario(
        servers=specs,
        capacities_per_s=capacities,
        traffic=OpenLoopTraffic(Steady(), load * sum(capacities), duration_s, LENGTHS, CONTEXT),
        routers=routers,
        layered=layered_rules(model_file=MODEL_FILE.read_bytes()),
    )


def offered_scenario(
    spec: WorkloadSpec | TraceSpec, servers: tuple[ServerSpec, ...], from_s: float = 0.0
) -> Scenario:
    """Put a workload, at its own load, before these servers; everything is at its default."""
    offered = offered_load(spec, servers)
    return Scenario(
        servers=servers,
        capacities_per_s=offered.capacities_per_s,
        traffic=offered.traffic,
        layered=layered.layered_rules({}),
        from_s=from_s,
    )


def watched(
    kind: type[LayeredKind], scene: Scenario, seed: int = 1
) -> tuple[PolicyRun, tuple[LayeredKind, ...]]:
    """Run a subclass of the production policy in a scenario; the policies are those of each router."""
    made: list[LayeredKind] = []

    def make(setting: RivalSetting) -> LayeredKind:
        names = [server.spec.name for server in setting.servers]
        made.append(kind(names, setting.layered, setting.rng))
        return made[-1]

    result = evaluate(scene, "watched", seed, policies={"watched": make})
    return result, tuple(made)


def refusing(scene: Scenario, max_active: int) -> Scenario:
    return replace(scene, layered=layered_rules(max_active=max_active))
