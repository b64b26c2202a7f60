from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest

from extproc.learning.boosting import DEFAULT_BOOSTING, DEFAULT_FOREST, MAX_LEAVES, EnsembleKind, fit_fleet
from extproc.learning.dataset import Observations, clean_observations, split_by_time
from extproc.learning.served_replay import replay
from extproc.learning.tree_text import MAX_TREES
from extproc.learning.tuning import best_settings, candidates

Columns = dict[str, np.ndarray[Any, Any]]

STUMPS = replace(DEFAULT_BOOSTING, trees=1, leaves=2)


@pytest.fixture(scope="module")
def train(samples_of: Callable[..., Columns]) -> Observations:
    return clean_observations(samples_of(n=1000, slowness=(1.0, 2.0)))[0]


def test_both_defaults_are_tried_even_if_there_is_no_time(train: Observations) -> None:
    result = best_settings(train, [], seed=1)
    assert {kind: (found.settings, found.tried) for kind, found in result.kinds.items()} == {
        EnsembleKind.BOOSTING: (DEFAULT_BOOSTING, 1),
        EnsembleKind.FOREST: (DEFAULT_FOREST, 1),
    }


def test_the_least_error_wins_and_a_bad_try_changes_nothing(train: Observations) -> None:
    result = best_settings(train, [STUMPS], seed=1)
    assert result.settings == best_settings(train, [], seed=1).settings
    assert result.kinds[EnsembleKind.BOOSTING].tried == 2
    assert result.kinds[result.settings.kind].error == min(found.error for found in result.kinds.values())


def test_settings_that_come_twice_are_tried_once(train: Observations) -> None:
    result = best_settings(train, [DEFAULT_BOOSTING, STUMPS, STUMPS], seed=1)
    assert result.kinds[EnsembleKind.BOOSTING].tried == 2


def test_settings_are_judged_by_what_came_after_that_from_which_the_model_was_made(
    train: Observations,
) -> None:
    older, newest = split_by_time(train, 0.25)
    assert older.at_s.max() < newest.at_s.min()
    model = fit_fleet(older, 1, DEFAULT_FOREST)
    residual = replay(model.predict(newest.features), newest, model.offsets) - np.log(newest.ttft_s)
    error = best_settings(train, [], seed=1).kinds[EnsembleKind.FOREST].error
    assert error == pytest.approx(np.abs(residual).mean())


def test_random_settings_come_after_the_defaults_and_are_small_enough_to_serve() -> None:
    tried = list(islice(candidates(np.random.default_rng(0)), 200))
    assert tried[:2] == [DEFAULT_BOOSTING, DEFAULT_FOREST]
    assert len(set(tried)) == 200
    assert {settings.kind for settings in tried[2:4]} == set(EnsembleKind)
    assert all(settings.trees < MAX_TREES and 2 <= settings.leaves <= MAX_LEAVES for settings in tried)
    assert all(0 < settings.row_share <= 1 and 0 < settings.feature_share <= 1 for settings in tried)


def test_the_same_generator_gives_the_same_settings() -> None:
    first, second = (list(islice(candidates(np.random.default_rng(5)), 10)) for _ in range(2))
    assert first == second


def test_random_settings_make_models(train: Observations) -> None:
    tried = list(islice(candidates(np.random.default_rng(3)), 2, 8))
    result = best_settings(train.take(slice(None, 200)), tried, seed=1)
    assert sum(found.tried for found in result.kinds.values()) == 8
    assert all(np.isfinite(found.error) for found in result.kinds.values())
