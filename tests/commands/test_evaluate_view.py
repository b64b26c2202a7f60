from io import StringIO

import pytest
from rich.console import Console

from extproc.commands.evaluate_view import comparison_table, heading
from extproc.lab.evaluation.result import QUANTILES, Evaluation, PolicyRun, summaries
from extproc.lab.rivals.choice import POLICIES


def evaluation(seeds: int, ttft_s: float | None = 100.0) -> Evaluation:
    quantiles_s = None if ttft_s is None else tuple(ttft_s * share for share in QUANTILES)
    runs = tuple(
        PolicyRun(policy, seed, 1000, 0, 0, 60.0, 1 - seed / 10, quantiles_s, 0.5, 0.9, 1.0, (), {})
        for policy in POLICIES
        for seed in range(seeds)
    )
    return Evaluation("local", "chat", 1, 0.1, 0.3, 2.0, 15.2, None, summaries(runs), runs)


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


def test_the_heading_says_what_was_evaluated() -> None:
    text = heading(evaluation(2))
    assert "fleet local, 15.20 requests/s; workload chat" in text
    assert "2 seed(s), 22,000 requests in all" in text
    assert "model none" in text
