import numpy as np
import pytest

from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES
from extproc.learning.quality import errors_of, held_out_errors

TIE = 0.05


def observed(ttft_s: list[float], backend: list[int], step_s: float = 0.1) -> Observations:
    n = len(ttft_s)
    features = np.zeros((n, len(FEATURES)))
    return Observations(np.arange(n) * step_s, features, np.array(ttft_s), np.array(backend), ("a", "b"))


def test_errors_are_relative_to_the_observed_ttft() -> None:
    errors = held_out_errors(observed([1.0, 2.0, 4.0], [0, 0, 0]), np.log([1.1, 2.0, 6.0]), TIE)
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
    assert held_out_errors(alternating, np.log(alternating.ttft_s), TIE).pairwise_accuracy == 1.0
    assert held_out_errors(alternating, -np.log(alternating.ttft_s), TIE).pairwise_accuracy == 0.0
