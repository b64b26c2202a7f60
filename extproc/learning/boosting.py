"""The shape that all backends share, and what sets each of them apart.

A fleet of unequal machines is modelled as log TTFT = shape(features) + offset(backend). Serving adds a
correction per backend to whatever the model says, so the file carries the shape alone, level with the middle
of the fleet.

The offsets come first, from a linear fit of both at once, and the shape is fitted to what they leave. They
cannot be left to the shape: a policy that balances TTFT gives the fast machine more load, so a mixture of
both machines looks as if load cost nothing, and going back and forth between shape and offsets does not find
the way out of there. With the linear start it adds nothing.

The shape is LightGBM's gradient boosting of squared error. Absolute error cannot be had together with
monotone constraints, and Huber's loss changed nothing on log TTFT between 1 and 10 s.
"""

from dataclasses import dataclass

import lightgbm
import numpy as np
import numpy.typing as npt

from extproc.learning.dataset import Observations, split_by_time
from extproc.learning.features import FEATURES, MONOTONE

MAX_TREES = 100
MAX_LEAVES = 15
"""100 trees of 15 leaves are what a decision has time for."""

_STOPPING_SHARE = 0.2
"""The newest part of the training samples, which only says when more trees no longer help."""

_STOPPING_PATIENCE = 10

_DOUBT = 10
"""An offset counts as if so many more samples had said zero: a backend with few samples gets a small one."""


@dataclass(frozen=True, slots=True, eq=False)
class FleetModel:
    """A LightGBM model text, and `(n_backends,)` offsets in log seconds, in the order of the fleet."""

    trees: str
    offsets: npt.NDArray[np.float64]


def fit_fleet(train: Observations, seed: int) -> FleetModel:
    """Shape and offsets for time-ordered observations; the same ones and the same seed give the same model.

    The offsets that come back are those against the shape, as serving would find them.
    """
    log_ttft = np.log(train.ttft_s)
    booster = _fit_shape(train, log_ttft - _linear_offsets(train, log_ttft)[train.backend], seed)
    residual = log_ttft - booster.predict(train.features, num_threads=1)
    return FleetModel(booster.model_to_string(), _offsets(train, residual))


def _linear_offsets(train: Observations, log_ttft: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Offsets of a least-squares fit of log TTFT to the logarithms of the features and the backends."""
    backends = np.eye(len(train.fleet))[train.backend]
    design = np.hstack([np.log1p(train.features), backends])
    coefficients = np.linalg.lstsq(design, log_ttft, rcond=None)[0]
    return _offsets(train, log_ttft - np.log1p(train.features) @ coefficients[: len(FEATURES)])


def _offsets(train: Observations, residual: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The median residual of each backend against that of the middle one; 0 for a backend without samples."""
    present = np.unique(train.backend)
    medians = np.array([np.median(residual[train.backend == backend]) for backend in present])
    counts = np.bincount(train.backend)[present]
    offsets = np.zeros(len(train.fleet))
    offsets[present] = (medians - np.median(medians)) * counts / (counts + _DOUBT)
    return offsets


def _fit_shape(train: Observations, target: npt.NDArray[np.float64], seed: int) -> lightgbm.Booster:
    older, newest = split_by_time(train, _STOPPING_SHARE)
    parameters = {
        "objective": "regression",
        "metric": "l1",
        "num_leaves": MAX_LEAVES,
        "min_data_in_leaf": 20,
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
    cut = len(older)
    fitted = lightgbm.Dataset(older.features, target[:cut], feature_name=list(FEATURES), params=parameters)
    watched = lightgbm.Dataset(newest.features, target[cut:], reference=fitted)
    return lightgbm.train(
        parameters,
        fitted,
        num_boost_round=MAX_TREES,
        valid_sets=[watched],
        callbacks=[lightgbm.early_stopping(_STOPPING_PATIENCE, verbose=False)],
    )
