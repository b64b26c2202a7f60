"""Which settings of the boosting predict best what came later.

Random search: of the settings only few matter, and it is unknown beforehand which, so random ones find good
values of those in fewer tries than a grid (Bergstra and Bengio, 2012). Each is judged on the newest part of
the *training* samples. The samples that judge the
final model are not seen here. How long to search is the caller's business: it ends the sequence of settings.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from extproc.learning.boosting import DEFAULT_SETTINGS, Settings, fit_trees, targets
from extproc.learning.dataset import Observations, split_by_time
from extproc.learning.forest import Forest
from extproc.learning.trees import MAX_LEAVES, MAX_TREES

_VALIDATION_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class TuningResult:
    """The best of the `tried` settings, and its mean absolute log error in validation."""

    settings: Settings
    error: float
    tried: int


def candidates(rng: np.random.Generator) -> Iterator[Settings]:
    """Yield settings to try without end: the default, then random ones."""
    yield DEFAULT_SETTINGS
    while True:
        yield Settings(
            trees=MAX_TREES,
            leaves=int(rng.integers(4, MAX_LEAVES + 1)),
            min_leaf_samples=round(10 ** rng.uniform(0.7, 2.0)),
            learning_rate=float(10 ** rng.uniform(-1.4, -0.5)),
            l2=float(10 ** rng.uniform(-2.0, 1.5)),
            row_share=float(rng.uniform(0.5, 1.0)),
            feature_share=float(rng.choice([0.6, 0.8, 1.0])),
        )


def best_settings(train: Observations, settings: Iterable[Settings], seed: int) -> TuningResult:
    """Find the best of the given settings, of which the default is always one; each is tried once."""
    older, newest = split_by_time(train, _VALIDATION_SHARE)
    errors: dict[Settings, float] = {}
    for tried in chain((DEFAULT_SETTINGS,), settings):
        if tried not in errors:
            errors[tried] = _validation_error(older, newest, tried, seed)
    best = min(errors, key=errors.__getitem__)
    return TuningResult(best, errors[best], len(errors))


def _validation_error(older: Observations, newest: Observations, settings: Settings, seed: int) -> float:
    forest = Forest(fit_trees(older, seed, settings))
    return float(np.abs(forest.sums(newest.features) - targets(newest)).mean())
