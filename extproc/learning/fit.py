"""From recorded samples to the content of a model file, with a report of what went into it.

The newest quarter of the usable samples judges the model and is never fitted to. The order of samples is
that of time, so the judgement includes whatever changed meanwhile.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import lightgbm
import numpy as np
import numpy.typing as npt

from extproc.errors import TrainingError
from extproc.learning.boosting import fit_fleet
from extproc.learning.dataset import (
    Dropped,
    Observations,
    clean_observations,
    medium_load,
    medium_zone,
    split_by_time,
)
from extproc.learning.features import FEATURES, MONOTONE
from extproc.learning.manifest import FORMAT_VERSION, TARGET, Manifest, SampleCounts, ZoneBounds
from extproc.learning.model_file import ModelFile, SelfTest, booster_of, canonical_trees, model_version
from extproc.learning.quality import held_out_errors

MIN_SAMPLES = 200
"""Fewer samples of the medium zone make no model; guessed: 120 of them grow leaves of at least 20."""

DEFAULT_ZONE = ZoneBounds(low_s=1.0, saturated_s=10.0)

_HELD_OUT_SHARE = 0.25
_SELF_TEST_ROWS = 8


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training run read, dropped and made; `offsets` are in log seconds, per backend."""

    rows: int
    dropped: Mapping[Dropped, int]
    offsets: Mapping[str, float]
    n_trees: int
    manifest: Manifest


def fit(
    columns: Mapping[str, npt.NDArray[np.generic]],
    *,
    seed: int,
    trained_at_s: float,
    zone: ZoneBounds = DEFAULT_ZONE,
) -> tuple[ModelFile, TrainingReport]:
    """A model made from columns of samples (see `clean_observations`); `trained_at_s` is a unix time.

    The same columns, seed and time give the same content. Raises TrainingError below `MIN_SAMPLES`.
    """
    observations, dropped = clean_observations(columns)
    usable, out_of_zone = medium_zone(observations, zone)
    dropped |= out_of_zone
    if len(usable) < MIN_SAMPLES:
        raise TrainingError(_too_few(len(usable), dropped))
    train, held_out = split_by_time(usable, _HELD_OUT_SHARE)
    model = fit_fleet(train, seed)
    trees = canonical_trees(model.trees)
    booster = booster_of(trees)
    trained_at = datetime.fromtimestamp(trained_at_s, UTC).isoformat()
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        model_version=model_version(trees, trained_at),
        features=FEATURES,
        monotone=MONOTONE,
        target=TARGET,
        zone_bounds=zone,
        training_range=_training_range(train),
        held_out_errors=held_out_errors(
            held_out, _predict(booster, held_out.features) + model.offsets[held_out.backend]
        ),
        samples=SampleCounts(train=len(train), held_out=len(held_out)),
        trained_at=trained_at,
        fleet=usable.fleet,
        medium_load=medium_load(observations, zone.low_s),
    )
    offsets = dict(zip(usable.fleet, model.offsets.tolist(), strict=True))
    report = TrainingReport(len(columns["at_s"]), dropped, offsets, booster.num_trees(), manifest)
    return ModelFile(manifest, _self_test(booster, train), trees), report


def _too_few(n_usable: int, dropped: Mapping[Dropped, int]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count) or "none"
    return f"{n_usable} usable samples; at least {MIN_SAMPLES} are needed (dropped: {reasons})"


def _training_range(train: Observations) -> dict[str, tuple[float, float]]:
    lowest, highest = train.features.min(axis=0).tolist(), train.features.max(axis=0).tolist()
    return {name: (low, high) for name, low, high in zip(FEATURES, lowest, highest, strict=True)}


def _self_test(booster: lightgbm.Booster, train: Observations) -> SelfTest:
    """Rows spread evenly over the training time, and both corners of the training range."""
    spread = np.linspace(0, len(train) - 1, _SELF_TEST_ROWS - 2).round().astype(np.intp)
    corners = [train.features.min(axis=0), train.features.max(axis=0)]
    rows = np.vstack([train.features[spread], *corners])
    return SelfTest(tuple(map(tuple, rows.tolist())), tuple(_predict(booster, rows).tolist()))


def _predict(booster: lightgbm.Booster, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return cast(npt.NDArray[np.float64], booster.predict(rows, num_threads=1))
