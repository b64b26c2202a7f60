from dataclasses import replace

import pytest

from extproc.lab.evaluation.result import QUANTILES, PolicyRun, Spread, fairness, summaries

RUN = PolicyRun("random", 1, 100, 10, 0, 60.0, 0.8, tuple(QUANTILES), 0.5, 0.9, 0.7, (), {})


def test_a_summary_is_the_median_and_the_range_over_seeds() -> None:
    runs = [replace(RUN, seed=seed, goodput=goodput) for seed, goodput in enumerate((0.9, 0.2, 0.8))]
    (summary,) = summaries(runs)
    assert summary.goodput == Spread(0.8, 0.2, 0.9)
    assert summary.ttft_p90_s == Spread(0.9, 0.9, 0.9)
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


def test_fairness_is_one_where_all_are_used_alike_and_least_where_one_does_everything() -> None:
    assert fairness([0.3, 0.3, 0.3]) == pytest.approx(1)
    assert fairness([0.9, 0, 0]) == pytest.approx(1 / 3)
    assert fairness([0, 0]) == 1
