"""The model: trees that correct the estimate, grown by LightGBM's gradient boosting.

Friedman, "Greedy function approximation", 2001: each tree corrects the sum of those before it. The target is
log(ttft / estimate), so that no tree has to learn what the estimate knows already: how fast each backend is,
and how long its queue. The remaining error is small, and where it is noise the trees find nothing: a
correction of zero. Outside of what they have seen they say what they said at its edge. The loss is squared
error.
"""

from dataclasses import dataclass

import lightgbm
import numpy as np
import numpy.typing as npt

from extproc.learning.dataset import Observations, split_by_time
from extproc.learning.features import FEATURES
from extproc.learning.trees import MAX_LEAVES, MAX_TREES, Trees, trees_of

LARGEST_TARGET = 1.5
"""Guessed, in log seconds: an estimate that was wrong by more than 4.5 times tells of something rare."""

_STOPPING_SHARE = 0.2
"""The newest part of the training samples, which only says when more trees no longer help."""

_STOPPING_PATIENCE = 10


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the boosting, which are tuned; `trees` is the most that it grows.

    Each tree sees `row_share` of the rows and `feature_share` of the features, drawn anew.
    """

    trees: int
    leaves: int
    min_leaf_samples: int
    learning_rate: float
    l2: float
    row_share: float
    feature_share: float


DEFAULT_SETTINGS = Settings(
    trees=MAX_TREES,
    leaves=MAX_LEAVES,
    min_leaf_samples=20,
    learning_rate=0.15,
    l2=1.0,
    row_share=1.0,
    feature_share=1.0,
)


def targets(observed: Observations) -> npt.NDArray[np.float64]:
    """Return log(ttft / estimate) of each observation, within the largest that is learned from."""
    return np.log(observed.ttft_s / observed.estimate_s).clip(-LARGEST_TARGET, LARGEST_TARGET)


def fit_trees(train: Observations, seed: int, settings: Settings = DEFAULT_SETTINGS) -> Trees:
    """Fit trees to time-ordered observations; the same arguments give the same trees.

    There are as many as the newest samples call for, grown on all samples: the newest may be busiest.
    """
    target, parameters = targets(train), _parameters(settings, seed)
    older, newest = split_by_time(train, _STOPPING_SHARE)
    cut = len(older)
    watched = _dataset(older.features, target[:cut], parameters)
    stopped = lightgbm.train(
        parameters,
        watched,
        num_boost_round=settings.trees,
        valid_sets=[lightgbm.Dataset(newest.features, target[cut:], reference=watched)],
        callbacks=[lightgbm.early_stopping(_STOPPING_PATIENCE, verbose=False)],
    )
    whole = _dataset(train.features, target, parameters)
    return trees_of(lightgbm.train(parameters, whole, num_boost_round=max(1, stopped.best_iteration)))


def _dataset(
    features: npt.NDArray[np.float64], target: npt.NDArray[np.float64], parameters: dict[str, object]
) -> lightgbm.Dataset:
    return lightgbm.Dataset(features, target, feature_name=list(FEATURES), params=parameters)


def _parameters(settings: Settings, seed: int) -> dict[str, object]:
    return {
        "objective": "regression",
        "metric": "l1",
        "boost_from_average": True,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": settings.min_leaf_samples,
        "learning_rate": settings.learning_rate,
        "lambda_l2": settings.l2,
        "bagging_fraction": settings.row_share,
        "bagging_freq": 1,
        "feature_fraction": settings.feature_share,
        "use_missing": False,
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": 1,
        "verbose": -1,
    }
