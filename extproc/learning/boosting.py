"""The shape that all backends share, and what sets each of them apart.

A fleet of unequal machines is modelled as log TTFT = shape(features) + offset(backend). Serving adds a
correction per backend to whatever the model says, so the file carries the shape alone, level with the middle
of the fleet.

A line and the offsets come first, fitted at once, and trees are fitted to what they leave. The offsets cannot
be left to the trees: a policy that balances TTFT gives the fast machine more load, so a mixture of both
machines looks as if load cost nothing, and going back and forth between shape and offsets does not find the
way out of there. With the linear start it adds nothing. Trees upon a line were better than trees alone by up
to a third on simulated fleets, most of all where the newest loads exceeded those of the training.

The trees are monotone, and grown by LightGBM's gradient boosting (Friedman, "Greedy function approximation",
2001): each tree corrects the sum of those before it. The loss is squared error. Absolute error cannot be had
together with monotone constraints, and Huber's loss changed nothing on log TTFT between 1 and 10 s. A random
forest instead was worse on every recording.
"""

from dataclasses import dataclass, replace
from typing import cast

import lightgbm
import numpy as np
import numpy.typing as npt

from extproc.learning.dataset import Observations, split_by_time
from extproc.learning.features import FEATURES, MONOTONE
from extproc.learning.log_line import LogLine
from extproc.learning.log_line_fit import backend_offsets, fit_linear
from extproc.learning.trees import Trees, booster_of, trees_of

MAX_TREES = 100
MAX_LEAVES = 15
"""What a decision has time for: 16 rows take 80 µs, of which a Python call is half."""

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
    learning_rate=0.1,
    l2=0.0,
    row_share=1.0,
    feature_share=1.0,
)


@dataclass(frozen=True, slots=True, eq=False)
class FleetModel:
    """A line, the trees that correct it, and `(n_backends,)` offsets."""

    line: LogLine
    trees: Trees
    offsets: npt.NDArray[np.float64]

    def predict(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Log TTFT on the fleet's middle backend, offsets left out: `(n, n_features)` to `(n,)`."""
        corrections = cast("npt.NDArray[np.float64]", booster_of(self.trees).predict(features, num_threads=1))
        return self.line.predict(features) + corrections


def fit_fleet(train: Observations, seed: int, settings: Settings = DEFAULT_SETTINGS) -> FleetModel:
    """Fit shape and offsets to time-ordered observations; the same arguments give the same model.

    The offsets that come back are those against the shape, as serving would find them.
    """
    log_ttft, straight = np.log(train.ttft_s), fit_linear(train)
    target = log_ttft - straight.line.predict(train.features) - straight.offsets[train.backend]
    trees = trees_of(_stopped_early(train, target, settings, seed))
    level = FleetModel(straight.line, trees, np.zeros(len(train.fleet)))
    return replace(level, offsets=backend_offsets(train, log_ttft - level.predict(train.features)))


def _stopped_early(
    train: Observations, target: npt.NDArray[np.float64], settings: Settings, seed: int
) -> lightgbm.Booster:
    """Grow as many trees as the newest samples call for, on all samples: the newest may be busiest."""
    parameters = _parameters(settings, seed)
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
    return lightgbm.train(parameters, whole, num_boost_round=max(1, stopped.best_iteration))


def _dataset(
    features: npt.NDArray[np.float64], target: npt.NDArray[np.float64], parameters: dict[str, object]
) -> lightgbm.Dataset:
    return lightgbm.Dataset(features, target, feature_name=list(FEATURES), params=parameters)


def _parameters(settings: Settings, seed: int) -> dict[str, object]:
    return {
        "objective": "regression",
        "metric": "l1",
        "num_leaves": settings.leaves,
        "min_data_in_leaf": settings.min_leaf_samples,
        "learning_rate": settings.learning_rate,
        "lambda_l2": settings.l2,
        "bagging_fraction": settings.row_share,
        "bagging_freq": 1,
        "feature_fraction": settings.feature_share,
        "monotone_constraints": list(MONOTONE),
        # The other methods give trees that are monotone, but not in a way a reader of the file can check.
        "monotone_constraints_method": "basic",
        "use_missing": False,
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": 1,
        "verbose": -1,
    }
