from dataclasses import replace

import pytest
from support.policy_run import RUN

from extproc.lab.evaluation.over_seeds import Spread, summaries
from extproc.lab.evaluation.result import EstimateQuality, fairness, layer_shares


def test_a_summary_is_the_median_and_the_range_over_seeds() -> None:
    runs = [replace(RUN, seed=seed, goodput=goodput) for seed, goodput in enumerate((0.9, 0.2, 0.8))]
    (summary,) = summaries(runs)
    assert summary.goodput == Spread(0.8, 0.2, 0.9)
    assert summary.ttft_p90_s == Spread(0.9, 0.9, 0.9)
    assert summary.delay_p90_s == Spread(0.45, 0.45, 0.45)
    assert summary.good == Spread(0.7, 0.7, 0.7)
    assert summary.refused_share == Spread(0.1, 0.1, 0.1)


def test_policies_stay_apart_and_in_order() -> None:
    runs = [RUN, replace(RUN, policy="oracle", goodput=1.0), replace(RUN, seed=2)]
    assert [(each.policy, each.goodput.median) for each in summaries(runs)] == [
        ("random", 0.8),
        ("oracle", 1.0),
    ]


def test_where_nothing_was_answered_there_is_no_ttft() -> None:
    (summary,) = summaries([replace(RUN, ttft_quantiles_s=None)])
    assert summary.ttft_p50_s is None


def test_layers_are_weighed_by_their_decisions_over_all_seeds() -> None:
    runs = [replace(RUN, decisions={"predict/lowest_prediction": 30, "reject/saturated": 10})]
    runs.append(replace(RUN, seed=2, decisions={"reject/saturated": 5, "reject/wait_too_long": 15}))
    (summary,) = summaries(runs)
    assert summary.layer_shares == {"predict": 0.5, "reject": 0.5}
    assert layer_shares({}) == {}


def test_the_estimate_is_summed_up_where_it_was_judged() -> None:
    judged = [replace(RUN, estimate=EstimateQuality(9, 8, accuracy, 0.2)) for accuracy in (0.8, 0.9, None)]
    (summary,) = summaries([RUN, *judged])
    assert summary.pairwise_accuracy == Spread(pytest.approx(0.85), 0.8, 0.9)
    assert summary.estimate_error == Spread(0.2, 0.2, 0.2)
    (summary,) = summaries([RUN])
    assert (summary.pairwise_accuracy, summary.estimate_error) == (None, None)


def test_fairness_is_one_where_all_are_used_alike_and_least_where_one_does_everything() -> None:
    assert fairness([0.3, 0.3, 0.3]) == pytest.approx(1)
    assert fairness([0.9, 0, 0]) == pytest.approx(1 / 3)
    assert fairness([0, 0]) == 1
