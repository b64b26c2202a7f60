import numpy as np
import pytest

from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES
from extproc.learning.quality import MIN_PAIRS, comparable_pairs, errors_of, held_out_errors

INPUT = FEATURES.index("input_tokens")


def observed(ttft_s: list[float], backend: list[int], step_s: float = 0.5) -> Observations:
    n = len(ttft_s)
    features = np.zeros((n, len(FEATURES)))
    features[:, INPUT] = 100
    return Observations(np.arange(n) * step_s, features, np.array(ttft_s), np.array(backend), ("a", "b"))


def test_errors_are_relative_to_the_observed_ttft() -> None:
    errors = held_out_errors(observed([1.0, 2.0, 4.0], [0, 0, 0]), np.log([1.1, 2.0, 6.0]))
    assert errors.median_relative_error == pytest.approx(0.1)
    assert errors.share_within_20_percent == pytest.approx(2 / 3)
    assert errors.median_abs_log_error == pytest.approx(np.log(1.1))
    assert errors.pairwise_accuracy is None


def test_the_mean_log_error_counts_twice_as_long_and_half_as_long_alike() -> None:
    errors = errors_of(np.array([2.0, 2.0]), np.log([4.0, 1.0]))
    assert errors is not None
    assert errors.mean_abs_log == pytest.approx(np.log(2.0))


def test_without_predictions_there_are_no_errors() -> None:
    assert errors_of(np.empty(0), np.empty(0)) is None


def test_the_promised_errors_hold_the_accuracy_of_pairs() -> None:
    alternating = observed([4.0, 2.0] * 30, [0, 1] * 30)
    assert held_out_errors(alternating, np.log(alternating.ttft_s)).pairwise_accuracy == 1.0
    assert held_out_errors(alternating, -np.log(alternating.ttft_s)).pairwise_accuracy == 0.0


def twins(
    gap_s: float, lengths: tuple[float, float] = (100, 100), ttft_s: tuple[float, float] = (4, 2)
) -> Observations:
    """One pair of requests on two backends every minute."""
    n = 2 * MIN_PAIRS
    features = np.zeros((n, len(FEATURES)))
    features[:, INPUT] = np.tile(lengths, MIN_PAIRS)
    at_s = np.repeat(np.arange(MIN_PAIRS) * 60.0, 2) + np.tile([0.0, gap_s], MIN_PAIRS)
    return Observations(at_s, features, np.tile(ttft_s, MIN_PAIRS), np.tile([0, 1], MIN_PAIRS), ("a", "b"))


SLOW_AND_FAST = observed([4.0, 2.0] * 30, [0, 1] * 30)


@pytest.mark.parametrize(("sign", "accuracy"), [(1, 1.0), (-1, 0.0), (0, 0.5)])
def test_a_perfect_score_is_always_right_its_negative_never_and_a_tie_half(
    sign: float, accuracy: float
) -> None:
    rng = np.random.default_rng(1)
    seen = observed(rng.uniform(1, 10, 300).tolist(), rng.integers(2, size=300).tolist())
    assert comparable_pairs(seen).accuracy(sign * np.log(seen.ttft_s)) == accuracy


def test_only_the_order_of_the_score_counts() -> None:
    pairs = comparable_pairs(SLOW_AND_FAST)
    assert pairs.accuracy(np.tile([3.5, 3.4], 30)) == 1.0
    assert pairs.accuracy(np.tile([2.0, 4.0], 30)) == 0.0


def test_twins_are_compared_with_each_other_alone() -> None:
    pairs = comparable_pairs(twins(gap_s=0.001))
    assert len(pairs) == MIN_PAIRS
    assert (pairs.second - pairs.first == 1).all()
    assert (pairs.slower == -1).all()


@pytest.mark.parametrize(
    "unlike",
    [
        observed([4.0, 2.0] * 30, [0, 0] * 30),
        twins(gap_s=1.5),
        twins(gap_s=0.1, lengths=(100, 130)),
        twins(gap_s=0.1, ttft_s=(4.0, 4.1)),
        observed([], []),
    ],
    ids=["one backend", "far apart", "of other length", "as good as equal", "nothing"],
)
def test_what_cannot_be_compared_is_no_pair(unlike: Observations) -> None:
    assert len(comparable_pairs(unlike)) == 0


def test_ttfts_within_a_fifth_are_no_pair() -> None:
    assert len(comparable_pairs(twins(gap_s=0.1, ttft_s=(4.0, 4.7)))) == 0
    assert len(comparable_pairs(twins(gap_s=0.1, ttft_s=(4.0, 4.9)))) == MIN_PAIRS


def test_few_pairs_have_no_accuracy() -> None:
    enough = twins(gap_s=0.1)
    assert comparable_pairs(enough).accuracy(enough.ttft_s) == 1.0
    few = enough.take(slice(2, None))
    assert comparable_pairs(few).accuracy(few.ttft_s) is None


def test_a_pair_is_within_a_zone_if_both_of_it_are() -> None:
    seen = observed([2.0, 20.0, 3.0, 4.0], [0, 1, 0, 1], step_s=0.1)
    inside = comparable_pairs(seen).within(seen.ttft_s < 10)
    assert sorted(zip(inside.first.tolist(), inside.second.tolist(), strict=True)) == [(0, 3), (2, 3)]
