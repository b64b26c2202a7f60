"""The worth of a training run, as plain numbers: per zone and against what simpler routers would do.

The zones are by the observed TTFT, so the model is shown outside of its own as well, where it is not asked.
Beside the plain estimate a corrected one has to beat what simpler routers could do with the same knowledge:
the load, and the last TTFT.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from extproc.fleet.zone import Zone
from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES, ZoneBounds
from extproc.learning.gate import corrected
from extproc.learning.predictor import Predictor
from extproc.learning.quality import Errors, Pairs, comparable_pairs, errors_of
from extproc.learning.tuning import TuningResult

_LOAD = FEATURES.index("load")


class Route(StrEnum):
    """The value by which the faster backend is picked."""

    MODEL = "model"
    ESTIMATE = "estimate"
    LEAST_LOAD = "least_load"
    LAST_TTFT = "last_ttft"


@dataclass(frozen=True, slots=True)
class RouteQuality:
    """`errors` is None where there are no samples, or no times are predicted."""

    samples: int
    errors: Errors | None
    pairs: int
    pairwise_accuracy: float | None


@dataclass(frozen=True, slots=True)
class TrainingQuality:
    """All of it on held-out samples, but for `tuning`, whose validation lies before them.

    `zones` has the zones by their observed TTFT.
    """

    zones: Mapping[Zone, Mapping[Route, RouteQuality]]
    all_zones: Mapping[Route, RouteQuality]
    tuning: TuningResult


def training_quality(
    older: Observations,
    newest: Observations,
    model: Predictor,
    tuning: TuningResult,
    zone: ZoneBounds,
) -> TrainingQuality:
    """Judge a model made from `older` by `newest`, as far as there was an estimate; both are of all zones."""
    newest = newest.take(newest.estimate_s > 0)
    masks = zone.masks(newest.ttft_s)
    pairs = comparable_pairs(newest)
    predictions = {
        Route.MODEL: corrected(model, newest),
        Route.ESTIMATE: np.log(newest.estimate_s),
        Route.LEAST_LOAD: least_load(newest),
        Route.LAST_TTFT: last_ttft(older, newest),
    }
    return TrainingQuality(
        zones={name: _routes(newest, pairs, predictions, mask) for name, mask in masks.items()},
        all_zones=_routes(newest, pairs, predictions, np.ones(len(newest), bool)),
        tuning=tuning,
    )


def _routes(
    observed: Observations,
    pairs: Pairs,
    predictions: Mapping[Route, npt.NDArray[np.float64]],
    rows: npt.NDArray[np.bool_],
) -> dict[Route, RouteQuality]:
    inside = pairs.within(rows)
    return {
        route: RouteQuality(
            samples=int(rows.sum()),
            errors=None if route is Route.LEAST_LOAD else errors_of(observed.ttft_s[rows], score[rows]),
            pairs=len(inside),
            pairwise_accuracy=inside.accuracy(score),
        )
        for route, score in predictions.items()
    }


def least_load(observed: Observations) -> npt.NDArray[np.float64]:
    """Return the load that each request met: an order of backends, not a time."""
    return observed.features[:, _LOAD]


def last_ttft(before: Observations, observed: Observations) -> npt.NDArray[np.float64]:
    """Return the log of the newest TTFT that was known of the backend when each request came.

    `before` is what was observed earlier, on the same fleet. Where a backend is new, the median of all of it.
    """
    at_s = np.concatenate([before.at_s, observed.at_s])
    ttft_s = np.concatenate([before.ttft_s, observed.ttft_s])
    backend = np.concatenate([before.backend, observed.backend])
    typical = np.log(np.median(before.ttft_s if len(before) else observed.ttft_s))
    newest = np.full(len(observed), typical)
    for index in np.unique(observed.backend):
        is_it = backend == index
        ended_s = at_s[is_it] + ttft_s[is_it]
        order = np.argsort(ended_s, kind="stable")
        rows = np.flatnonzero(observed.backend == index)
        n_known = np.searchsorted(ended_s[order], observed.at_s[rows], side="right")
        known = np.log(ttft_s[is_it][order])
        newest[rows] = np.where(n_known > 0, known[n_known - 1], typical)
    return newest
