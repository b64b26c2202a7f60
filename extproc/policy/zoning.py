"""The second route to a candidate's zone: the classifier of the model file, where that has one.

A file has one only where it told zones better than the boundaries on load, on samples that neither had seen.
A stale backend is not asked about; its boundary stands.
"""

from collections.abc import Sequence
from typing import Final

from extproc.fleet.view import FleetView
from extproc.fleet.zone import Zone
from extproc.learning.zone_classifier import LOW, SATURATED, ZoneClassifier
from extproc.policy.predictive import feature_rows

_ZONES: Final = {LOW: Zone.LOW, SATURATED: Zone.SATURATED}


def classify(view: FleetView, asked: Sequence[int], input_tokens: int, classifier: ZoneClassifier) -> None:
    """Have the classifier tell the zones of the `asked`, for a request of this length."""
    positions = [position for position in asked if view.is_fresh(position)]
    if positions:
        levels = classifier.levels(feature_rows(view, positions, input_tokens)).tolist()
        zones = (_ZONES.get(level, Zone.MEDIUM) for level in levels)
        view.tell_zones(zip(positions, zones, strict=True))


def spared(view: FleetView, fit: list[int]) -> list[int]:
    """The `fit` without those classed as saturated; all of them if none would be left.

    To refuse a request is for the guard, which counts, and not for a guess.
    """
    saturated = view.told_saturated()
    return [position for position in fit if position not in saturated] or fit
