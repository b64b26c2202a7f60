import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from support.evaluated_scenarios import Given, scenario

from extproc.errors import ConfigError
from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.nuisances import ColdStart, Nuisances, Spans, parse_cold_start, parse_spans
from extproc.lab.evaluation.result import PolicyRun
from extproc.lab.evaluation.simulated_server import Gauges
from extproc.lab.evaluation.world import SPEED_PERIOD_S, end_of_spans, pace_of
from extproc.lab.rivals.choice import POLICIES
from extproc.lab.rivals.policy import Candidate, Ended, Policy
from extproc.lab.traffic.arrivals import Arrival

ALL_OF_THEM = Nuisances(0.2, 0.2, 2, Spans(10.0, 0.8), Spans(15.0, 5.0), ColdStart(5.0, 3.0))
SPARSE = tuple(Arrival(2.0 * number, 500, 20) for number in range(1, 60))
"""Requests that do not meet."""


class Watching(Policy):
    """Sends everything to the only backend, and keeps what it hears and when."""

    needs_gauges = True

    def __init__(self) -> None:
        self.asked_s: list[float] = []
        self.seen: list[tuple[float, Gauges]] = []
        self.ends: list[tuple[float, Ended]] = []

    def choose(
        self, request_id: int, request: Arrival, candidates: Sequence[Candidate], now_s: float
    ) -> int | None:
        self.asked_s.append(now_s)
        return 0

    def scraped(self, backend: int, gauges: Gauges, now_s: float) -> None:
        self.seen.append((now_s, gauges))

    def ended(self, request: Ended, now_s: float) -> None:
        self.ends.append((now_s, request))


def watched(nuisances: Nuisances, traffic: tuple[Arrival, ...] = SPARSE) -> tuple[Watching, PolicyRun]:
    policy = Watching()
    scene = replace(scenario("a100-8b*1:8:16384"), traffic=Given(traffic), nuisances=nuisances)
    return policy, evaluate(scene, "watching", 4, policies={"watching": lambda _: policy})


def ttfts_s(policy: Watching) -> list[float]:
    return [ended.ttft_s for _, ended in policy.ends if ended.ttft_s is not None]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_copes_with_all_nuisances_at_once_and_every_request_ends_once(policy: str) -> None:
    fleet = "2xa100-8b*1:8:16384,a100-8b*1:8:16384!10-15"
    scene = replace(scenario(fleet, 0.9, duration_s=30.0, routers=2), nuisances=ALL_OF_THEM)
    first, second = (evaluate(scene, policy, seed=5) for _ in range(2))
    assert first == second
    answered = sum(backend.requests for backend in first.backends)
    assert answered + first.refused + first.failed == first.requests


def test_noise_changes_the_times_that_are_measured_and_nothing_in_the_engine() -> None:
    quiet, quiet_run = watched(Nuisances())
    noisy, noisy_run = watched(Nuisances(ttft_noise=0.3))
    logarithms = np.log(np.array(ttfts_s(noisy)) / np.array(ttfts_s(quiet)))
    assert 0.2 < float(np.std(logarithms)) < 0.4
    assert abs(float(np.mean(logarithms))) < 0.15
    decoding_s = [
        [ended.duration_s - (ended.ttft_s or 0.0) for _, ended in each.ends] for each in (quiet, noisy)
    ]
    assert decoding_s[1] == pytest.approx(decoding_s[0])
    assert noisy_run.utilisation == pytest.approx(quiet_run.utilisation, rel=0.02)


def test_a_machine_keeps_a_speed_for_a_while_and_gets_another() -> None:
    (spec,) = parse_fleet("a100-8b*1:8")
    pace = pace_of(Nuisances(speed_noise=0.3), spec, np.random.default_rng(1))
    assert pace is not None
    assert pace(0.1) == pace(SPEED_PERIOD_S - 0.1) != pace(SPEED_PERIOD_S + 0.1)
    drawn = [np.log(pace(SPEED_PERIOD_S * (number + 0.5))) for number in range(300)]
    assert 0.25 < statistics.stdev(drawn) < 0.35
    policy, _ = watched(Nuisances(speed_noise=0.3))
    assert statistics.stdev(ttfts_s(policy)) > 0.1 * statistics.mean(ttfts_s(policy))


def test_a_cold_server_is_slow_after_each_of_its_starts() -> None:
    (spec,) = parse_fleet("a100-8b*1:8@100-!300-310")
    pace = pace_of(Nuisances(cold_start=ColdStart(20.0, 4.0)), spec, np.random.default_rng(1))
    assert pace is not None
    assert [pace(at_s) for at_s in (119.9, 120.1, 299.0, 311.0, 329.9, 330.1)] == [0.25, 1, 1, 0.25, 0.25, 1]
    policy, _ = watched(Nuisances(cold_start=ColdStart(21.0, 4.0)))
    cold_s, warm_s = ttfts_s(policy)[0], ttfts_s(policy)[-1]
    assert cold_s == pytest.approx(4 * warm_s)


def test_a_router_that_stands_still_handles_all_of_it_at_the_end() -> None:
    many = tuple(Arrival(0.05 * number, 50, 5) for number in range(1, 400))
    policy, _ = watched(Nuisances(stalls=Spans(10.0, 2.0)), many)
    moments = sorted(
        policy.asked_s + [now_s for now_s, _ in policy.seen] + [now_s for now_s, _ in policy.ends]
    )
    gaps = [(later - earlier, later) for earlier, later in pairwise(moments)]
    stalls = [later for gap_s, later in gaps if gap_s > 1.5]
    assert len(stalls) == 2
    assert stalls[1] - stalls[0] == pytest.approx(10.0)
    assert policy.asked_s.count(stalls[0]) == pytest.approx(40, abs=1)
    assert all(ended.ttft_s is not None and ended.ttft_s < 3 for _, ended in policy.ends)
    late = [ended for now_s, ended in policy.ends if now_s in stalls]
    assert all(ended.duration_s < 3 for ended in late)  # it had ended before


def test_gauges_that_stand_still_are_read_as_they_were() -> None:
    busy = tuple(Arrival(0.2 * number, 500, 50) for number in range(1, 300))
    policy, _ = watched(Nuisances(frozen_gauges=Spans(20.0, 6.0)), busy)
    totals = [gauges.prompt_tokens for _, gauges in policy.seen]
    longest = max(totals.count(total) for total in set(totals))
    assert longest * 0.1 == pytest.approx(6.0, abs=0.5)
    assert totals == sorted(totals)
    calm, _ = watched(Nuisances(), busy)
    assert len(calm.seen) == pytest.approx(len(policy.seen), rel=0.01)
    steady = [gauges.prompt_tokens for _, gauges in calm.seen]
    assert max(steady.count(total) for total in set(steady)) < 15


def test_spans_begin_anywhere_and_come_once_in_each_period() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        end_s = end_of_spans(Spans(10.0, 2.0), rng)
        inside = [end_s(0.01 * number) > 0.01 * number for number in range(3000)]
        assert sum(inside[1000:]) == pytest.approx(400, abs=2)


def test_the_traffic_is_the_same_with_nuisances() -> None:
    requests = [
        evaluate(replace(scenario(duration_s=10.0), nuisances=each), "random", seed=2).requests
        for each in (Nuisances(), ALL_OF_THEM)
    ]
    assert requests[0] == requests[1]


@pytest.mark.parametrize("text", ["", "5", "5:x", "5:5", "5:0", "0:1", "nan:1", "5:1:1", "inf:2"])
def test_a_text_that_is_no_period_and_length_is_an_error_that_names_the_option(text: str) -> None:
    with pytest.raises(ConfigError, match="--stalls"):
        parse_spans("--stalls", text)


@pytest.mark.parametrize("text", ["", "30", "0:2", "30:0.5", "30:nan", "a:b"])
def test_a_text_that_is_no_cold_start_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="--cold-start"):
        parse_cold_start("--cold-start", text)


def test_texts_and_names_are_each_others_reverse() -> None:
    assert parse_spans("--stalls", "30:0.5") == Spans(30.0, 0.5)
    assert parse_cold_start("--cold-start", "20:3") == ColdStart(20.0, 3.0)
    assert ALL_OF_THEM.names() == [
        "--ttft-noise 0.2",
        "--speed-noise 0.2",
        "--retries 2",
        "--stalls 10:0.8",
        "--frozen-gauges 15:5",
        "--cold-start 5:3",
    ]
    assert not Nuisances().names()
