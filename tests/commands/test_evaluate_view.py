from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console
from support.policy_run import RUN

from extproc.commands.evaluate_view import comparison_table, heading, remarks
from extproc.lab.evaluation.over_seeds import Evaluation, summaries
from extproc.lab.evaluation.result import QUANTILES, EstimateQuality, RetriedRequests
from extproc.lab.rivals.choice import POLICIES


def evaluation(seeds: int, ttft_s: float | None = 100.0, from_s: float = 0.0) -> Evaluation:
    quantiles_s = None if ttft_s is None else tuple(ttft_s * share for share in QUANTILES)
    runs = tuple(
        replace(
            RUN,
            policy=policy,
            seed=seed,
            requests=1000,
            refused=0,
            attempts=1500,
            retried=RetriedRequests(300, 100, 2.5, 4.5, 3.0) if policy == "random" else None,
            goodput=1 - seed / 10,
            good=0.95 - seed / 10,
            ttft_quantiles_s=quantiles_s,
            delay_quantiles_s=quantiles_s,
            decisions={"predict/lowest_prediction": 10, "reject/saturated": 30}
            if policy == "layered"
            else {},
            estimate=EstimateQuality(100, 80, 0.9, 0.125) if policy == "layered" else None,
        )
        for policy in POLICIES
        for seed in range(seeds)
    )
    return Evaluation(
        fleet="local",
        workload="chat",
        from_s=from_s,
        capacity_per_s=15.2,
        model_version=None,
        policies=summaries(runs),
        runs=runs,
    )


def shown(which: Evaluation) -> str:
    console = Console(file=StringIO(), width=80)
    console.print(comparison_table(which))
    return console.file.getvalue()


@pytest.mark.parametrize("ttft_s", [0.0123, 123.4, None])
def test_nothing_is_cut_off_at_80_columns(ttft_s: float | None) -> None:
    text = shown(evaluation(3, ttft_s))
    assert "…" not in text
    assert all(f"\n{policy} " in text for policy in POLICIES)


def test_the_range_over_seeds_stands_below_the_median() -> None:
    assert "90.0%" in shown(evaluation(3))
    assert "80%-100%" in shown(evaluation(3))
    assert "100%-100%" not in shown(evaluation(1))


def test_good_and_the_delay_stand_beside_ttft() -> None:
    text = shown(evaluation(3))
    assert "delay p99" in text
    assert "85.0%" in text
    assert "75%-95%" in text


def test_the_layers_that_decided_are_named_and_the_quality_of_the_estimate() -> None:
    assert remarks(evaluation(2))[:1] == [
        "layered: decided by predict 25.0%, reject 75.0%; "
        "estimate: 90.0% of pairs in the right order, median error 12%"
    ]


def test_the_heading_says_what_was_evaluated() -> None:
    text = heading(evaluation(2))
    assert "fleet local, 15.20 requests/s; workload chat" in text
    assert f"2 seed(s), {2 * len(POLICIES)},000 requests in all" in text
    assert "model none" in text
    assert "counted from" not in text
    assert "counted from 120 s on" in heading(evaluation(2, from_s=120.0))


def test_it_says_what_became_of_those_who_came_back() -> None:
    said = "25.0% of those who came back gave up; the others' first token came after 2.5 s (p90 4.5)"
    assert f"random: {said}; 1.50 attempts for an answer" in remarks(evaluation(3))
