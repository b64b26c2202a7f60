"""The worth of a training run, as plain numbers: per zone and against what simpler routers would do.

The zones are by the observed TTFT, so the model is shown outside of its own as well, where it is not asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from extproc.fleet.zone import Zone
from extproc.learning.baselines import last_ttft, least_load
from extproc.learning.dataset import Observations
from extproc.learning.features import ZoneBounds
from extproc.learning.gate import corrected
from extproc.learning.predictor import Predictor
from extproc.learning.quality import Errors, Pairs, comparable_pairs, errors_of
from extproc.learning.tuning import TuningResult


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
