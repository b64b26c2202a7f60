"""Which settings of which kind of ensemble predict best what came later.

Random search: of the settings only few matter, and nobody knows beforehand which, so random ones find good
values of those in fewer tries than a grid (Bergstra and Bengio, 2012). Each is judged as serving would find
it, with the backends' corrections, on the newest part of the *training* samples. What judges the final model
is not seen here. How long to search is the caller's business: it ends the sequence of settings.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from extproc.learning.boosting import (
    DEFAULT_BOOSTING,
    DEFAULT_FOREST,
    MAX_LEAVES,
    EnsembleKind,
    Settings,
    fit_fleet,
)
from extproc.learning.dataset import Observations, split_by_time
from extproc.learning.served_replay import replay

_VALIDATION_SHARE = 0.25
_DEFAULTS = (DEFAULT_BOOSTING, DEFAULT_FOREST)


@dataclass(frozen=True, slots=True)
class KindResult:
    """The best of the `tried` settings of one kind, and its mean absolute log error in validation."""

    settings: Settings
    error: float
    tried: int


@dataclass(frozen=True, slots=True)
class TuningResult:
    """The settings with the least validation error, and the best of each kind to compare."""

    settings: Settings
    kinds: Mapping[EnsembleKind, KindResult]


def candidates(rng: np.random.Generator) -> Iterator[Settings]:
    """Endless settings to try: the default of both kinds, then random ones of both in turn."""
    yield from _DEFAULTS
    while True:
        yield replace(
            DEFAULT_BOOSTING,
            leaves=int(rng.integers(4, 16)),
            min_leaf_samples=round(10 ** rng.uniform(0.7, 2.0)),
            learning_rate=float(10 ** rng.uniform(-1.4, -0.5)),
            l2=float(10 ** rng.uniform(-2.0, 1.5)),
            row_share=float(rng.uniform(0.5, 1.0)),
            feature_share=float(rng.choice([0.6, 0.8, 1.0])),
        )
        yield replace(
            DEFAULT_FOREST,
            leaves=int(rng.integers(12, MAX_LEAVES + 1)),
            min_leaf_samples=round(10 ** rng.uniform(0.0, 1.7)),
            l2=float(10 ** rng.uniform(-2.0, 1.0)),
            row_share=float(rng.uniform(0.3, 0.9)),
            feature_share=float(rng.choice([0.6, 0.8, 1.0])),
        )


def best_settings(train: Observations, settings: Iterable[Settings], seed: int) -> TuningResult:
    """The best of the given settings, of which the defaults are always two; each is tried once."""
    older, newest = split_by_time(train, _VALIDATION_SHARE)
    errors: dict[Settings, float] = {}
    for tried in chain(_DEFAULTS, settings):
        if tried not in errors:
            errors[tried] = _validation_error(older, newest, tried, seed)
    kinds = {kind: _best_of(kind, errors) for kind in EnsembleKind}
    return TuningResult(min(kinds.values(), key=lambda result: result.error).settings, kinds)


def _best_of(kind: EnsembleKind, errors: Mapping[Settings, float]) -> KindResult:
    of_kind = {settings: error for settings, error in errors.items() if settings.kind is kind}
    best = min(of_kind, key=of_kind.__getitem__)
    return KindResult(best, of_kind[best], len(of_kind))


def _validation_error(older: Observations, newest: Observations, settings: Settings, seed: int) -> float:
    model = fit_fleet(older, seed, settings)
    corrected = replay(model.predict(newest.features), newest, model.offsets)
    return float(np.abs(corrected - np.log(newest.ttft_s)).mean())
