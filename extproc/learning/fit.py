"""From observations to the content of a model file, with the gate's verdict and a report of its quality.

The newest quarter of the usable samples judges the model and is never fitted to. The order of samples is
that of time, so the judgement includes whatever changed meanwhile.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from extproc.errors import TrainingError
from extproc.learning.boosting import Settings, fit_trees
from extproc.learning.dataset import Dropped, Observations, learnable, medium_zone, split_at_medium_zone
from extproc.learning.features import DEFAULT_ZONE, FEATURES, ZoneBounds
from extproc.learning.gate import corrected_errors, judge
from extproc.learning.manifest import FORMAT_VERSION, TARGET, HeldOutErrors, Manifest, SampleCounts, Verdict
from extproc.learning.model_file import ModelFile, SelfTest, model_version
from extproc.learning.model_rules import DEFAULT_GATE_RULE, GateRule
from extproc.learning.predictor import Predictor
from extproc.learning.training_quality import TrainingQuality, training_quality
from extproc.learning.tuning import best_settings

MIN_SAMPLES = 200
"""Fewer samples of the medium zone make no model; guessed: a quarter of them judges it."""

_SELF_TEST_ROWS = 8
_UNJUDGED_ERRORS = HeldOutErrors(0.0, 0.0, 0.0, 0.0, None)
_UNJUDGED = Verdict(False, "", 0.0, 0.0, None, None, 0.0, 0)  # until the gate has judged


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
    """Return a model made from clean observations of all zones, judged by the gate.

    `trained_at_s` is a unix time. The best of `settings` are used; the default is always one of them. The
    same arguments give the same model. Raises TrainingError below `MIN_SAMPLES` in the medium zone.
    """
    _, out_of_zone = learnable(observations, zone)
    n_medium = len(medium_zone(observations, zone))
    if n_medium < MIN_SAMPLES:
        raise TrainingError(_too_few(n_medium, out_of_zone))
    older, newest = split_at_medium_zone(observations, zone)
    train, held_out = learnable(older, zone)[0], medium_zone(newest, zone)
    tuning = best_settings(train, settings, seed)
    trees = fit_trees(train, seed, tuning.settings)
    trained_at = datetime.fromtimestamp(trained_at_s, UTC).isoformat()
    draft = Manifest(
        format_version=FORMAT_VERSION,
        model_version=model_version(trees, trained_at),
        features=FEATURES,
        target=TARGET,
        zone_bounds=zone,
        held_out_errors=_UNJUDGED_ERRORS,
        samples=SampleCounts(train=len(train), held_out=len(held_out)),
        trained_at=trained_at,
        verdict=_UNJUDGED,
    )
    challenger = Predictor(draft, trees)
    errors = corrected_errors(challenger, held_out)
    verdict = judge(challenger, errors, incumbent, held_out, rule)
    manifest = replace(draft, held_out_errors=errors, verdict=verdict)
    quality = training_quality(older, newest, challenger, tuning, zone)
    return Training(ModelFile(manifest, _self_test(challenger, train), trees), verdict, out_of_zone, quality)


def _too_few(n_usable: int, dropped: Mapping[Dropped, int]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count) or "none"
    return (
        f"{n_usable} samples whose estimate lies in the medium zone; at least {MIN_SAMPLES} are needed"
        f" (dropped: {reasons}). Record longer, or at a higher load"
    )


def _self_test(predictor: Predictor, train: Observations) -> SelfTest:
    """Return rows spread evenly over the training time, and both extremes of the features."""
    spread = np.linspace(0, len(train) - 1, _SELF_TEST_ROWS - 2).round().astype(np.intp)
    corners = [train.features.min(axis=0), train.features.max(axis=0)]
    rows = np.vstack([train.features[spread], *corners])
    return SelfTest(tuple(map(tuple, rows.tolist())), tuple(predictor.log_corrections(rows).tolist()))
