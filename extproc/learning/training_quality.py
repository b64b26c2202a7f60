"""What a training run is worth, as plain numbers: per zone and against what simpler routers would do.

The model is made for the medium zone, and judged there. What it says in the other zones is shown as well, but
nobody relies on it: serving does not ask there, and of the saturated zone only that it is saturated matters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from extproc.fleet.zone import Zone
from extproc.learning.baselines import last_ttft, least_load, linear_fit
from extproc.learning.boosting import FleetModel
from extproc.learning.dataset import Observations, medium_zone
from extproc.learning.features import ZoneBounds
from extproc.learning.quality import Errors, Pairs, comparable_pairs, errors_of
from extproc.learning.served_replay import replay
from extproc.learning.tuning import TuningResult


class Route(StrEnum):
    """What the faster backend is picked by."""

    MODEL = "model"
    LEAST_LOAD = "least_load"
    LAST_TTFT = "last_ttft"
    LINEAR_FIT = "linear_fit"


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
    model: FleetModel,
    tuning: TuningResult,
    zone: ZoneBounds,
    tie_fraction: float,
) -> TrainingQuality:
    """Judge a model made from the medium zone of `older` by `newest`; both are of all zones."""
    masks = zone.masks(newest.ttft_s)
    train, _ = medium_zone(older, zone)
    pairs = comparable_pairs(newest, tie_fraction)
    predictions = {
        Route.MODEL: replay(model.predict(newest.features), newest, model.offsets, masks[Zone.MEDIUM]),
        Route.LEAST_LOAD: least_load(newest),
        Route.LAST_TTFT: last_ttft(older, newest),
        Route.LINEAR_FIT: linear_fit(train, newest, masks[Zone.MEDIUM]),
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
