"""Whether the classifier tells zones better than thresholds on the load do, on samples that it has not seen.

The thresholds are those that serving learns by itself: for the medium zone each backend's boundary, which
follows its outcomes; for the saturated one the load that told best in training, per backend. Thresholds know
the backend and not the request, the classifier the request and not the backend. Which is better is the
fleet's business: unequal machines speak for thresholds, prompts of very unequal length for the classifier.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extproc.fleet.zone import learned_boundary
from extproc.learning.dataset import Observations, medium_load
from extproc.learning.features import FEATURES
from extproc.learning.zone_bounds import ZoneBounds
from extproc.learning.zone_classifier import MEDIUM, SATURATED, ZoneClassifier, observed_levels

_MARGIN = 0.02
"""Guessed: by how much the classifier's balanced accuracy must be better to be used."""

_MIN_SAMPLES = 20
"""Guessed: a level of which fewer were held out would count as much as the others, and is mostly luck."""

_UNKNOWN_BOUNDARY = 16.0
"""The default of `zones.medium_load`, where training shows no boundary."""

_LOAD = FEATURES.index("load")


@dataclass(frozen=True, slots=True)
class ClassifierVerdict:
    """The mean share of each level's samples that was told right, by both routes, on `samples` held out."""

    samples: int
    classifier_balanced_accuracy: float
    thresholds_balanced_accuracy: float
    is_used: bool


def classifier_verdict(
    train: Observations, held_out: Observations, classifier: ZoneClassifier, zone: ZoneBounds
) -> ClassifierVerdict:
    """The classifier against thresholds, on at least one held-out sample; both parts are of all zones."""
    actual = observed_levels(held_out.ttft_s, zone)
    by_classifier = balanced_accuracy(actual, classifier.levels(held_out.features))
    by_thresholds = balanced_accuracy(actual, threshold_levels(train, held_out, zone))
    return ClassifierVerdict(
        len(held_out), by_classifier, by_thresholds, by_classifier >= by_thresholds + _MARGIN
    )


def balanced_accuracy(actual: npt.NDArray[np.int8], said: npt.NDArray[np.int8]) -> float:
    """The mean share told right, over the levels of which there are enough samples; 0 where there is none."""
    levels, counts = np.unique(actual, return_counts=True)
    enough = levels[counts >= _MIN_SAMPLES]
    return float(np.mean([(said[actual == level] == level).mean() for level in enough] or [0.0]))


def threshold_levels(train: Observations, held_out: Observations, zone: ZoneBounds) -> npt.NDArray[np.int8]:
    """The level of each held-out observation by load alone, as serving would have told it at that moment."""
    is_medium = _replayed_boundaries(train, held_out, zone) <= held_out.features[:, _LOAD]
    saturated_load = np.full(len(train.fleet), np.inf)
    for backend in np.unique(train.backend):
        threshold = medium_load(train.take(train.backend == backend), zone.saturated_s)
        saturated_load[backend] = np.inf if threshold is None else threshold
    is_saturated = held_out.features[:, _LOAD] >= saturated_load[held_out.backend]
    return np.where(is_saturated, SATURATED, np.where(is_medium, MEDIUM, 0)).astype(np.int8)


def _replayed_boundaries(
    train: Observations, held_out: Observations, zone: ZoneBounds
) -> npt.NDArray[np.float64]:
    """Each held-out request's boundary of its backend, learned of all outcomes that were known then."""
    start = medium_load(train, zone.low_s)
    boundaries = [_UNKNOWN_BOUNDARY if start is None else max(1.0, start)] * len(train.fleet)
    load = np.concatenate([train.features[:, _LOAD], held_out.features[:, _LOAD]])
    backend = np.concatenate([train.backend, held_out.backend]).tolist()
    ttft_s = np.concatenate([train.ttft_s, held_out.ttft_s])
    ended_s = np.concatenate([train.at_s, held_out.at_s]) + ttft_s
    order = np.argsort(ended_s, kind="stable")
    outcomes = list(zip(order.tolist(), load[order].tolist(), ttft_s[order].tolist(), strict=True))
    n_known = np.searchsorted(ended_s[order], held_out.at_s, side="right").tolist()
    at_decision, known = np.empty(len(held_out)), 0
    for row, slot in enumerate(held_out.backend.tolist()):
        for outcome, met_load, took_s in outcomes[known : n_known[row]]:
            learner = backend[outcome]
            boundaries[learner] = learned_boundary(boundaries[learner], met_load, took_s, zone.low_s)
        known = n_known[row]
        at_decision[row] = boundaries[slot]
    return at_decision
