"""The judge is judged: by policies that know the truth, the opposite of it, or nothing."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from support.evaluated_scenarios import scenario

from extproc.lab.evaluation.estimate_judge import MAX_JUDGED
from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.result import EstimateQuality, PolicyRun
from extproc.lab.evaluation.scenario import Scenario
from extproc.lab.rivals.choice import RivalSetting
from extproc.lab.rivals.layered import Layered
from extproc.lab.rivals.oracle import ttft_if_sent

ONE_SLOW = "2xa100-8b*1:8:16384,a100-8b*0.3:8:16384"


def judged(fleet: str = ONE_SLOW, load: float = 0.8, from_s: float = 0.0, most: int = MAX_JUDGED) -> Scenario:
    return replace(scenario(fleet, load), judged=most, from_s=from_s)


def quality_of(estimate: Callable[[float], float], scene: Scenario) -> EstimateQuality:
    """That of a policy whose estimates are made of the true TTFTs."""

    def make(setting: RivalSetting) -> Layered:
        class Predicting(Layered):
            def estimates_s(self, request, now_s):
                return {
                    number: estimate(ttft_if_sent(server, request, now_s))
                    for number, server in enumerate(setting.servers)
                }

        return Predicting([each.spec.name for each in setting.servers], setting.layered, setting.rng)

    quality = evaluate(scene, "predicting", 1, policies={"predicting": make}).estimate
    assert quality is not None
    return quality


def test_the_truth_is_always_right() -> None:
    quality = quality_of(lambda truth_s: truth_s, judged())
    assert quality.decisions > quality.pairs > 50
    assert (quality.pairwise_accuracy, quality.median_error) == (1.0, 0.0)


def test_the_opposite_of_the_truth_is_never_right() -> None:
    assert quality_of(lambda truth_s: -truth_s, judged()).pairwise_accuracy == 0.0


def test_no_estimate_is_right_half_of_the_time() -> None:
    quality = quality_of(lambda _: 1.0, judged())
    assert quality.pairwise_accuracy == 0.5


def test_the_error_is_relative_to_the_truth() -> None:
    assert quality_of(lambda truth_s: 1.5 * truth_s, judged()).median_error == pytest.approx(0.5)


def test_pairs_that_hardly_differ_are_left_aside() -> None:
    alike = "2xa100-8b*1:8:16384,a100-8b*0.9:8:16384"
    assert quality_of(lambda truth_s: truth_s, judged(alike, load=0.02)).pairs < 20


def test_a_sample_is_spread_over_the_counted_part_of_the_run() -> None:
    requests = evaluate(scenario(ONE_SLOW), "random", 1).requests
    whole = quality_of(lambda truth_s: truth_s, judged(most=40))
    half = quality_of(lambda truth_s: truth_s, judged(from_s=10.0, most=40))
    assert requests > 200
    assert 20 < whole.decisions <= 40
    assert 20 < half.decisions <= 40


def test_a_single_backend_has_no_pairs() -> None:
    quality = quality_of(lambda truth_s: truth_s, judged("a100-8b*1:8:16384"))
    assert (quality.pairs, quality.pairwise_accuracy, quality.median_error) == (0, None, 0.0)


@pytest.mark.parametrize("routers", [1, 2])
@pytest.mark.parametrize("policy", ["layered", "layered-no-model"])
def test_being_judged_changes_nothing(policy: str, routers: int) -> None:
    scene = scenario(ONE_SLOW, load=1.1, routers=routers)
    plain = evaluate(scene, policy, seed=3)
    found = evaluate(replace(scene, judged=MAX_JUDGED), policy, seed=3)
    assert found.estimate is not None
    assert replace(found, estimate=None) == plain


def test_only_the_layered_policy_has_an_estimate() -> None:
    found: PolicyRun = evaluate(judged(), "random", 1)
    assert found.estimate == EstimateQuality(0, 0, None, None)
