import numpy as np
import pytest

from extproc.fleet.zone import LEARNING_RATE
from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES
from extproc.learning.zone_bounds import DEFAULT_ZONE
from extproc.learning.zone_classifier import ZoneClassifier
from extproc.learning.zone_training import fit_zone_classifier
from extproc.learning.zone_verdict import (
    ClassifierVerdict,
    balanced_accuracy,
    classifier_verdict,
    threshold_levels,
)

LOAD, INPUT = FEATURES.index("load"), FEATURES.index("input_tokens")
N = 3000


def fleet(s_per_load: tuple[float, ...], s_per_token: float) -> tuple[Observations, Observations]:
    """Training and held-out samples of backends whose TTFT is linear in load and input length."""
    rng = np.random.default_rng(6)
    backend = rng.integers(len(s_per_load), size=N)
    features = np.zeros((N, len(FEATURES)))
    features[:, LOAD] = rng.integers(1, 60, N)
    features[:, INPUT] = rng.lognormal(6, 1.2, N)
    ttft_s = np.array(s_per_load)[backend] * features[:, LOAD] + s_per_token * features[:, INPUT]
    names = tuple(f"vllm-{number}" for number in range(len(s_per_load)))
    seen = Observations(np.arange(1.0, N + 1), features, ttft_s * rng.lognormal(0, 0.1, N), backend, names)
    return seen.take(slice(None, 2000)), seen.take(slice(2000, None))


def judged(train: Observations, held_out: Observations) -> ClassifierVerdict:
    classifier = fit_zone_classifier(train, DEFAULT_ZONE)
    assert classifier is not None
    return classifier_verdict(train, held_out, classifier, DEFAULT_ZONE)


def test_the_classifier_is_used_where_the_input_length_decides() -> None:
    verdict = judged(*fleet((0.01, 0.01), s_per_token=0.004))
    assert verdict.is_used
    assert verdict.classifier_balanced_accuracy > verdict.thresholds_balanced_accuracy + 0.1


def test_thresholds_are_used_where_machines_are_unequal() -> None:
    verdict = judged(*fleet((0.02, 0.05, 0.3), s_per_token=0.0))
    assert not verdict.is_used
    assert verdict.thresholds_balanced_accuracy > verdict.classifier_balanced_accuracy


def test_balanced_accuracy_counts_every_level_the_same() -> None:
    actual = np.repeat(np.array([0, 1], np.int8), [980, 20])
    assert balanced_accuracy(actual, np.zeros(1000, np.int8)) == 0.5


def test_a_level_of_which_hardly_any_sample_was_held_out_does_not_count() -> None:
    actual = np.repeat(np.array([0, 1], np.int8), [980, 3])
    assert balanced_accuracy(actual, np.zeros(983, np.int8)) == 1.0
    assert balanced_accuracy(actual[-3:], np.ones(3, np.int8)) == 0.0


def test_a_draw_is_not_enough() -> None:
    train, held_out = fleet((0.05,), s_per_token=0.0)
    never = ZoneClassifier(((0.0,) * len(FEATURES),) * 2, (-1.0, -1.0))
    low = held_out.take(held_out.ttft_s < 0.3)
    verdict = classifier_verdict(train, low, never, DEFAULT_ZONE)
    assert (verdict.classifier_balanced_accuracy, verdict.samples) == (1.0, len(low))
    assert verdict.thresholds_balanced_accuracy == 1.0
    assert not verdict.is_used


def one_backend(at_s: list[float], load: list[float], ttft_s: list[float]) -> Observations:
    features = np.zeros((len(at_s), len(FEATURES)))
    features[:, LOAD] = load
    return Observations(np.array(at_s), features, np.array(ttft_s), np.zeros(len(at_s), np.intp), ("a",))


def test_a_boundary_moves_when_an_outcome_is_known_and_not_before() -> None:
    train = one_backend([0.0, 1.0], [10, 20], [0.5, 2.0])
    boundary = 20 + LEARNING_RATE * (10 - 20)
    held_out = one_backend([10.0, 12.9, 13.1], [10, boundary, boundary], [3.0, 2.0, 2.0])
    assert threshold_levels(train, held_out, DEFAULT_ZONE).tolist() == [0, 0, 1]


@pytest.mark.parametrize(("load", "level"), [(99, 1), (100, 2)])
def test_saturated_is_from_the_load_that_told_best_in_training(load: float, level: int) -> None:
    train = one_backend([0, 1, 2, 3], [5, 50, 90, 100], [0.1, 2.0, 3.0, 20.0])
    held_out = one_backend([50.0], [load], [1.0])
    assert threshold_levels(train, held_out, DEFAULT_ZONE).tolist() == [level]
