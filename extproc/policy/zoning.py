"""The second route to a candidate's zone: the classifier of the model file, where that has one.

A file has one only where it told zones better than the boundaries on load, on samples that neither had seen.
A stale backend is not asked about; its boundary stands.
"""

from extproc.fleet.load import Bools
from extproc.fleet.view import FleetView
from extproc.learning.zone_classifier import LOW, SATURATED, ZoneClassifier
from extproc.policy.predictive import feature_rows


def classify(view: FleetView, asked: Bools, input_tokens: int, classifier: ZoneClassifier) -> None:
    """Have the classifier tell the zones of the `asked`, for a request of this length."""
    positions = (asked & view.is_fresh).nonzero()[0]
    if positions.size:
        levels = classifier.levels(feature_rows(view, positions.tolist(), input_tokens))
        view.tell_zones(positions, levels == LOW, levels == SATURATED)


def spared(view: FleetView, fit: Bools) -> Bools:
    """The `fit` without those classed as saturated; all of them if none would be left.

    To refuse a request is for the guard, which counts, and not for a guess.
    """
    if view.is_high is None:
        return fit
    left = fit & ~view.is_high
    return left if left.any() else fit
