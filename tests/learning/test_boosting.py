from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from extproc.learning.boosting import LARGEST_TARGET, fit_trees, targets
from extproc.learning.dataset import Observations, clean_observations
from extproc.learning.features import FEATURES
from extproc.learning.forest import Forest
from extproc.learning.trees import MAX_LEAVES, MAX_TREES, Split, Tree, Trees, check_trees

Columns = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def unequal(samples_of: Callable[..., Columns]) -> Observations:
    """Two fast machines and one four times slower; the estimate knows that, and nothing of the input."""
    return clean_observations(samples_of(n=4000, slowness=(1.0, 1.0, 4.0)))[0]


@pytest.fixture(scope="module")
def fitted(unequal: Observations) -> Trees:
    return fit_trees(unequal, seed=1)


def n_leaves(tree: Tree) -> int:
    return n_leaves(tree.left) + n_leaves(tree.right) if isinstance(tree, Split) else 1


def test_the_correction_is_what_the_estimate_does_not_know(unequal: Observations, fitted: Trees) -> None:
    left = targets(unequal) - Forest(fitted).sums(unequal.features)
    assert np.abs(targets(unequal)).mean() > 0.15
    assert np.abs(left).mean() < 0.1, "the noise is 0.08"


def test_an_estimate_that_is_right_is_not_corrected(samples_of: Callable[..., Columns]) -> None:
    columns = samples_of(n=4000)
    estimate_s = columns["own_prompt_s"] + columns["turns_s"]
    columns["ttft_s"] = estimate_s * np.random.default_rng(4).lognormal(0, 0.2, 4000)
    observed = clean_observations(columns)[0]
    assert np.abs(Forest(fit_trees(observed, seed=1)).sums(observed.features)).mean() < 0.05


def test_one_absurd_outcome_is_learned_from_within_bounds(unequal: Observations) -> None:
    absurd = unequal.take(np.arange(50))  # a copy
    absurd.ttft_s[7] = 80_000.0
    assert targets(absurd).max() == LARGEST_TARGET


def test_the_model_is_small_enough_for_a_decision(fitted: Trees) -> None:
    check_trees(fitted)
    assert 1 < len(fitted) <= MAX_TREES
    assert 1 < max(map(n_leaves, fitted)) <= MAX_LEAVES


def test_the_same_observations_and_seed_give_the_same_trees(unequal: Observations, fitted: Trees) -> None:
    assert fit_trees(unequal, seed=1) == fitted


def test_features_that_never_vary_make_a_model_of_the_typical_correction() -> None:
    n = 300
    features = np.full((n, len(FEATURES)), 0.5)
    constant = Observations(np.arange(1.0, n + 1), features, np.full(n, 2.0), np.zeros(n, np.intp), ("a",))
    (correction,) = Forest(fit_trees(constant, seed=1)).sums(np.zeros((1, len(FEATURES))))
    assert correction == pytest.approx(np.log(2.0 / 1.5))
