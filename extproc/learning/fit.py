"""From observations to the content of a model file, with the gate's verdict and a report of its quality.

The newest quarter of the usable samples judges the model and is never fitted to. The order of samples is
that of time, so the judgement includes whatever changed meanwhile.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from extproc.errors import TrainingError
from extproc.learning.boosting import FleetModel, Settings, fit_fleet
from extproc.learning.dataset import Dropped, Observations, medium_load, medium_zone, split_at_medium_zone
from extproc.learning.features import DEFAULT_ZONE, FEATURES, MONOTONE, ZoneBounds
from extproc.learning.gate import judge, served_errors
from extproc.learning.manifest import (
    FORMAT_VERSION,
    LARGEST_OFFSET,
    TARGET,
    HeldOutErrors,
    Manifest,
    SampleCounts,
    Verdict,
)
from extproc.learning.model_file import ModelFile, SelfTest, model_version
from extproc.learning.model_rules import DEFAULT_GATE_RULE, GateRule
from extproc.learning.predictor import Predictor
from extproc.learning.served_replay import settled_corrections
from extproc.learning.training_quality import TrainingQuality, training_quality
from extproc.learning.trees import booster_of
from extproc.learning.tuning import best_settings

MIN_SAMPLES = 200
"""Fewer samples of the medium zone make no model; guessed: 120 of them grow leaves of at least 20."""

_RARE_SHARE = 0.002
"""Guessed: so many samples on either side of a feature's range do not count for it."""

_SELF_TEST_ROWS = 8
_UNJUDGED_ERRORS = HeldOutErrors(0.0, 0.0, 0.0, 0.0, None)
_UNJUDGED = Verdict(False, "", 0.0, None, None, 0.0, 0)  # until the gate has judged


@dataclass(frozen=True, slots=True)
class Training:
    """A model, what the gate says of it, and how good it is; `out_of_zone` counts the samples left aside."""

    model_file: ModelFile
    verdict: Verdict
    out_of_zone: Mapping[Dropped, int]
    quality: TrainingQuality


def fit(
    observations: Observations,
    *,
    settings: Iterable[Settings] = (),
    incumbent: Predictor | None = None,
    rule: GateRule = DEFAULT_GATE_RULE,
    seed: int,
    trained_at_s: float,
    zone: ZoneBounds = DEFAULT_ZONE,
) -> Training:
    """A model made from clean observations of all zones, judged by the gate; `trained_at_s` is a unix time.

    The best of `settings` are used; the default is always one of them. The same arguments give the same
    model. Raises TrainingError below `MIN_SAMPLES` in the medium zone.
    """
    usable, out_of_zone = medium_zone(observations, zone)
    if len(usable) < MIN_SAMPLES:
        raise TrainingError(_too_few(len(usable), out_of_zone))
    older, newest = split_at_medium_zone(observations, zone)
    train, held_out = medium_zone(older, zone)[0], medium_zone(newest, zone)[0]
    tuning = best_settings(train, settings, seed)
    model = fit_fleet(train, seed, tuning.settings)
    quality = training_quality(older, newest, model, tuning, zone, rule.tie_fraction)
    trained_at = datetime.fromtimestamp(trained_at_s, UTC).isoformat()
    draft = Manifest(
        format_version=FORMAT_VERSION,
        model_version=model_version(model.trees, trained_at),
        features=FEATURES,
        monotone=MONOTONE,
        target=TARGET,
        zone_bounds=zone,
        training_range=_training_range(train),
        held_out_errors=_UNJUDGED_ERRORS,
        samples=SampleCounts(train=len(train), held_out=len(held_out)),
        trained_at=trained_at,
        offsets=_offsets(model, train),
        medium_load=medium_load(observations, zone.low_s),
        line=model.line,
        verdict=_UNJUDGED,
    )
    challenger = Predictor(draft, booster_of(model.trees))
    errors = served_errors(challenger, held_out, rule.tie_fraction)
    verdict = judge(challenger, errors, incumbent, held_out, rule)
    manifest = replace(draft, held_out_errors=errors, verdict=verdict, offsets=_offsets(model, usable))
    return Training(
        ModelFile(manifest, _self_test(challenger, train), model.trees), verdict, out_of_zone, quality
    )


def _too_few(n_usable: int, dropped: Mapping[Dropped, int]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count) or "none"
    return f"{n_usable} usable samples; at least {MIN_SAMPLES} are needed (dropped: {reasons})"


def _training_range(train: Observations) -> dict[str, tuple[float, float]]:
    """What nearly all samples lie in: a single absurd one must not make everything look familiar."""
    tails = (_RARE_SHARE, 1 - _RARE_SHARE)
    lowest, highest = np.quantile(train.features, tails, axis=0, method="nearest").tolist()
    return {name: (low, high) for name, low, high in zip(FEATURES, lowest, highest, strict=True)}


def _offsets(model: FleetModel, observed: Observations) -> dict[str, float]:
    """Where corrections stand at the end of `observed`, so that serving need not begin at zero."""
    settled = settled_corrections(model.predict(observed.features), observed, model.offsets)
    return dict(zip(observed.fleet, settled.clip(-LARGEST_OFFSET, LARGEST_OFFSET).tolist(), strict=True))


def _self_test(predictor: Predictor, train: Observations) -> SelfTest:
    """Rows spread evenly over the training time, and both corners of the training range."""
    spread = np.linspace(0, len(train) - 1, _SELF_TEST_ROWS - 2).round().astype(np.intp)
    corners = [train.features.min(axis=0), train.features.max(axis=0)]
    rows = np.vstack([train.features[spread], *corners])
    return SelfTest(tuple(map(tuple, rows.tolist())), tuple(predictor.predict_log_ttft(rows).tolist()))
