import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from extproc.learning.dataset import Observations, clean_observations
from extproc.learning.features import FEATURES, MONOTONE
from extproc.learning.zone_bounds import DEFAULT_ZONE, ZoneBounds
from extproc.learning.zone_classifier import SATURATED, observed_levels
from extproc.learning.zone_training import MIN_LEVEL_SAMPLES, fit_zone_classifier

Columns = dict[str, np.ndarray[Any, Any]]
ZONE = ZoneBounds(1.0, 3.0)


@pytest.fixture(scope="module")
def all_zones(samples_of: Callable[..., Columns]) -> Observations:
    return clean_observations(samples_of(n=3000, swing=60))[0]


def test_levels_that_load_decides_are_told(all_zones: Observations) -> None:
    classifier = fit_zone_classifier(all_zones, ZONE)
    assert classifier is not None
    actual = observed_levels(all_zones.ttft_s, ZONE)
    said = classifier.levels(all_zones.features)
    for level in range(3):
        assert (said[actual == level] == level).mean() > 0.8


def test_more_load_or_input_never_means_a_lower_level(all_zones: Observations) -> None:
    reversed_ttft = Observations(
        all_zones.at_s, all_zones.features, 4.0 / all_zones.ttft_s, all_zones.backend, all_zones.fleet
    )
    for observations in (all_zones, reversed_ttft):
        classifier = fit_zone_classifier(observations, ZONE)
        assert classifier is not None
        assert (np.array(classifier.weights)[:, np.array(MONOTONE) > 0] >= 0).all()


def test_a_flood_of_idle_samples_does_not_make_everything_low(all_zones: Observations) -> None:
    idle = np.flatnonzero(all_zones.ttft_s < 1)
    flooded = all_zones.take(np.concatenate([np.arange(len(all_zones)), np.repeat(idle, 20)]))
    classifier = fit_zone_classifier(flooded, ZONE)
    assert classifier is not None
    is_medium = observed_levels(all_zones.ttft_s, ZONE) > 0
    assert (classifier.levels(all_zones.features)[is_medium] > 0).mean() > 0.8


@pytest.mark.parametrize("zone", [ZoneBounds(1e3, 1e4), ZoneBounds(1e-6, 1e4)], ids=["only low", "no low"])
def test_without_enough_of_the_low_or_medium_zone_there_is_no_classifier(
    all_zones: Observations, zone: ZoneBounds
) -> None:
    assert fit_zone_classifier(all_zones, zone) is None


def test_what_has_hardly_been_saturated_is_never_called_so(all_zones: Observations) -> None:
    hardly = np.sort(all_zones.ttft_s)[-MIN_LEVEL_SAMPLES + 1]
    classifier = fit_zone_classifier(all_zones, ZoneBounds(1.0, float(hardly)))
    assert classifier is not None
    overloaded = np.full((1, len(FEATURES)), 1e5)
    assert classifier.levels(overloaded)[0] < SATURATED


def test_levels_that_one_feature_tells_without_error_have_finite_weights() -> None:
    n = 400
    features = np.zeros((n, len(FEATURES)))
    features[:, 1] = np.arange(n)
    ttft_s = np.where(np.arange(n) < n // 2, 0.1, 2.0)
    clean_cut = Observations(np.arange(1.0, n + 1), features, ttft_s, np.zeros(n, np.intp), ("a",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier = fit_zone_classifier(clean_cut, DEFAULT_ZONE)
    assert classifier is not None
    said = classifier.levels(features)
    assert (said == (ttft_s >= 1)).mean() > 0.95
    assert np.abs(classifier.weights[0]).max() < 100


def test_the_same_samples_give_the_same_classifier(all_zones: Observations) -> None:
    assert fit_zone_classifier(all_zones, ZONE) == fit_zone_classifier(all_zones, ZONE)
