import numpy as np
import pytest

from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES
from extproc.learning.quality import held_out_errors, pairwise_accuracy


def observed(ttft_s: list[float], backend: list[int], step_s: float = 0.1) -> Observations:
    n = len(ttft_s)
    return Observations(
        np.linspace(0, (n - 1) * step_s, n),
        np.zeros((n, len(FEATURES))),
        np.array(ttft_s),
        np.array(backend),
        ("a", "b"),
    )


SLOW_AND_FAST = observed([4.0, 2.0] * 30, [0, 1] * 30)


def test_errors_are_relative_to_the_observed_ttft() -> None:
    errors = held_out_errors(observed([1.0, 2.0, 4.0], [0, 0, 0]), np.log([1.1, 2.0, 6.0]))
    assert errors.median_relative_error == pytest.approx(0.1)
    assert errors.share_within_20_percent == pytest.approx(2 / 3)
    assert errors.median_abs_log_error == pytest.approx(np.log(1.1))


def test_the_right_order_of_every_pair_is_an_accuracy_of_one() -> None:
    assert pairwise_accuracy(SLOW_AND_FAST, np.log([3.5, 3.4] * 30)) == 1.0


def test_the_wrong_order_of_every_pair_is_an_accuracy_of_zero() -> None:
    assert pairwise_accuracy(SLOW_AND_FAST, np.log([2.0, 4.0] * 30)) == 0.0


def test_equal_predictions_are_half_right() -> None:
    assert pairwise_accuracy(SLOW_AND_FAST, np.zeros(60)) == 0.5


@pytest.mark.parametrize(
    "too_few",
    [
        observed([4.0, 2.0] * 20, [0, 1] * 20),
        observed([4.0, 2.0] * 30, [0, 0] * 30),
        observed([4.0, 2.0] * 30, [0, 1] * 30, step_s=3.0),
        observed([4.0, 4.1] * 30, [0, 1] * 30),
    ],
    ids=["few samples", "one backend", "far apart", "as good as equal"],
)
def test_too_few_comparable_pairs_give_no_accuracy(too_few: Observations) -> None:
    assert pairwise_accuracy(too_few, np.log(too_few.ttft_s)) is None
