import pytest

from benchmarks.ranking.figures import TTFTS, Figures
from benchmarks.ranking.verdict import Order, Runs, compared, gains, median_of, ranking

P99 = TTFTS["TTFT p99"]


def runs(**p99_s: list[float]) -> Runs:
    """Policies whose p99 TTFTs are these, by seed."""
    return {
        policy: [Figures(100, 0, 0, 0.1, 0.2, value_s, 1 / (1 + value_s)) for value_s in values_s]
        for policy, values_s in p99_s.items()
    }


def test_a_figure_is_its_median_over_the_seeds_and_the_draws():
    draws = [runs(ours=[1.0, 9.0, 2.0]), runs(ours=[3.0, 4.0, 5.0]), runs(ours=[8.0, 7.0, 6.0])]
    found = compared(median_of(P99, "ours"), runs(ours=[5.0, 6.0, 50.0]), draws)
    assert (found.real, found.predicted, found.low, found.high) == (6.0, 4.0, 2.0, 7.0)


@pytest.mark.parametrize(("real_s", "is_within"), [(1.9, False), (2.0, True), (6.5, True), (7.1, False)])
def test_the_real_experiment_has_to_be_among_those_predicted(real_s, is_within):
    draws = [runs(ours=[2.0]), runs(ours=[7.0])]
    assert compared(median_of(P99, "ours"), runs(ours=[real_s]), draws).is_within is is_within


def test_gains_are_of_equal_seeds():
    gain = gains("ours", "theirs")
    same = runs(ours=[1.0, 10.0, 100.0], theirs=[2.0, 20.0, 200.0])
    assert gain["TTFT p99"](same) == pytest.approx(0.5)
    assert gain["TTFT p50"](same) == 0.0
    assert gain["goodput"](same) == pytest.approx(1 / 11 - 1 / 21)


def test_policies_that_are_predicted_apart_have_to_come_out_so():
    draws = [runs(ours=[1.0], theirs=[2.0 + number]) for number in range(20)]
    assert ranking(runs(ours=[3.0], theirs=[4.0]), draws, P99) == [Order("ours", "theirs", is_kept=True)]
    assert ranking(runs(ours=[4.0], theirs=[3.0]), draws, P99) == [Order("ours", "theirs", is_kept=False)]
    swapped = [{"ours": draw["theirs"], "theirs": draw["ours"]} for draw in draws]
    assert ranking(runs(ours=[4.0], theirs=[3.0]), swapped, P99) == [Order("theirs", "ours", is_kept=True)]


def test_where_the_draws_disagree_no_order_is_predicted():
    draws = [runs(ours=[1.0 + number % 5], theirs=[2.5]) for number in range(20)]
    assert ranking(runs(ours=[1.0], theirs=[4.0]), draws, P99) == []
