"""Affinity to adapters in the evaluator: 32 adapters of skewed popularity, 8 servers with 4 places each."""

from collections import Counter
from functools import lru_cache

import msgspec
import numpy as np
import pytest
from support.evaluated_scenarios import offered_scenario

from extproc.errors import ConfigError
from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.over_seeds import summaries
from extproc.lab.evaluation.result import PolicyRun
from extproc.lab.evaluation.workload_text import WorkloadSpec, parse_workload
from extproc.lab.traffic.adapters import Adapters

FLEET = "8xa100-8b*1:32/4"
LENGTHS = "prompt=lognormal:250:0.9 output=lognormal:64:0.5"


def workload(text: str) -> WorkloadSpec:
    def nothing(_: str) -> None:
        raise AssertionError("there is no file")

    parsed = parse_workload(text, nothing, nothing)  # type: ignore[arg-type]  # not called
    assert isinstance(parsed, WorkloadSpec)
    return parsed


@lru_cache
def result(policy: str, seed: int = 1, for_s: int = 60) -> PolicyRun:
    spec = workload(f"poisson:0.6x {LENGTHS} for={for_s} adapters=32:1")
    scene = offered_scenario(spec, parse_fleet(FLEET), from_s=10.0)
    return evaluate(scene, policy, seed=seed)


@pytest.mark.parametrize("without", ["layered-no-adapters", "least-request"])
def test_with_affinity_waits_for_a_place_are_at_least_halved(without: str) -> None:
    with_affinity, plain = result("layered"), result(without)
    assert with_affinity.adapter_waits_share is not None
    assert plain.adapter_waits_share is not None
    assert with_affinity.adapter_waits_share <= plain.adapter_waits_share / 2
    assert (with_affinity.refused, with_affinity.failed) == (0, 0)


def test_with_affinity_the_servers_get_equal_shares() -> None:
    """One minute is played: chance alone moves a server's share by 10 %, its standard error being 4.5 %."""
    answered = [backend.requests for backend in result("layered").backends]
    assert result("layered").imbalance < 0.15, answered
    assert result("layered").fairness > 0.99


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_over_minutes_no_server_is_further_than_a_tenth_from_its_share(seed: int) -> None:
    with_affinity, plain = result("layered", seed, 240), result("layered-no-adapters", seed, 240)
    assert with_affinity.imbalance < 0.10
    assert with_affinity.adapter_waits_share is not None
    assert plain.adapter_waits_share is not None
    assert with_affinity.adapter_waits_share <= plain.adapter_waits_share / 2


def test_the_summary_has_both() -> None:
    (summary,) = summaries([result("layered")])
    assert summary.adapter_waits_share is not None
    assert summary.adapter_waits_share.median == result("layered").adapter_waits_share
    assert summary.imbalance is not None
    assert summary.imbalance.median == result("layered").imbalance


def test_popularity_follows_zipfs_law_and_nothing_else_of_the_traffic_changes() -> None:
    plain = workload(f"poisson:100 {LENGTHS} for=60").traffic(8192, 1.0)
    skewed = workload(f"poisson:100 {LENGTHS} for=60 adapters=32:1").traffic(8192, 1.0)
    one = list(plain.arrivals(np.random.default_rng(1)))
    two = list(skewed.arrivals(np.random.default_rng(1)))
    assert [msgspec.structs.replace(each, adapter=0) for each in two] == one
    counts = Counter(each.adapter for each in two)
    assert set(counts) == set(range(1, 33))
    assert counts[1] / len(two) == pytest.approx(Adapters(32, 1.0).shares()[0], rel=0.1)
    assert {each.adapter for each in one} == {0}


@pytest.mark.parametrize(
    "adapters",
    [
        "adapters=0:1",
        "adapters=1.5:1",
        "adapters=9:-1",
        "adapters=9",
        "adapters=99999:1",
        "adapters=x:1",
        "adapters=9:1 turns=6:20:1000:4",
        "adapters=9:1 adapters=9:1",
    ],
)
def test_odd_adapters_are_refused(adapters: str) -> None:
    with pytest.raises(ConfigError, match="adapters=COUNT:SKEW"):
        workload(f"poisson:100 {LENGTHS} for=60 {adapters}")


def test_a_fleet_says_how_many_adapters_run_at_once() -> None:
    specs = parse_fleet("a100-8b*1:32/4,a100-8b*1:32:4096:10/2@5-,a100-8b*1:8")
    assert [spec.limits.adapter_places for spec in specs] == [4, 2, None]
