from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest

from extproc.learning.boosting import DEFAULT_SETTINGS, fit_trees, targets
from extproc.learning.dataset import Observations, clean_observations, split_by_time
from extproc.learning.forest import Forest
from extproc.learning.trees import MAX_LEAVES, MAX_TREES
from extproc.learning.tuning import best_settings, candidates

Columns = dict[str, np.ndarray[Any, Any]]

STUMPS = replace(DEFAULT_SETTINGS, trees=1, leaves=2)


@pytest.fixture(scope="module")
def train(samples_of: Callable[..., Columns]) -> Observations:
    return clean_observations(samples_of(n=1000, slowness=(1.0, 2.0)))[0]


def test_the_default_is_tried_even_if_there_is_no_time(train: Observations) -> None:
    result = best_settings(train, [], seed=1)
    assert (result.settings, result.tried) == (DEFAULT_SETTINGS, 1)


def test_the_least_error_wins_and_a_bad_try_changes_nothing(train: Observations) -> None:
    result, alone = best_settings(train, [STUMPS], seed=1), best_settings(train, [], seed=1)
    assert (result.settings, result.error) == (alone.settings, alone.error)
    assert result.tried == 2


def test_settings_that_come_twice_are_tried_once(train: Observations) -> None:
    result = best_settings(train, [DEFAULT_SETTINGS, STUMPS, STUMPS], seed=1)
    assert result.tried == 2


def test_settings_are_judged_by_what_came_after_that_from_which_the_model_was_made(
    train: Observations,
) -> None:
    older, newest = split_by_time(train, 0.25)
    assert older.at_s.max() < newest.at_s.min()
    residual = Forest(fit_trees(older, 1, DEFAULT_SETTINGS)).sums(newest.features) - targets(newest)
    error = best_settings(train, [], seed=1).error
    assert error == pytest.approx(np.abs(residual).mean())


def test_random_settings_come_after_the_default_and_are_small_enough_to_serve() -> None:
    tried = list(islice(candidates(np.random.default_rng(0)), 200))
    assert tried[0] == DEFAULT_SETTINGS
    assert len(set(tried)) == 200
    assert all(settings.trees <= MAX_TREES and 2 <= settings.leaves <= MAX_LEAVES for settings in tried)
    assert all(0 < settings.row_share <= 1 and 0 < settings.feature_share <= 1 for settings in tried)


def test_the_same_generator_gives_the_same_settings() -> None:
    first, second = (list(islice(candidates(np.random.default_rng(5)), 10)) for _ in range(2))
    assert first == second


def test_random_settings_make_models(train: Observations) -> None:
    tried = list(islice(candidates(np.random.default_rng(3)), 1, 8))
    result = best_settings(train.take(slice(None, 200)), tried, seed=1)
    assert result.tried == 8
    assert np.isfinite(result.error)
