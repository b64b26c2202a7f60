import msgspec
import numpy as np
import pytest

from extproc.learning.features import FEATURES
from extproc.learning.zone_bounds import DEFAULT_ZONE
from extproc.learning.zone_classifier import MAX_WEIGHT, ZoneClassifier, observed_levels

LOAD = FEATURES.index("load")


def by_load(medium: float, saturated: float) -> ZoneClassifier:
    """Cuts at these loads."""
    weights = tuple(1.0 if feature == LOAD else 0.0 for feature in range(len(FEATURES)))
    return ZoneClassifier((weights, weights), (-float(np.log1p(medium)), -float(np.log1p(saturated))))


def rows(load: list[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    features = np.zeros((len(load), len(FEATURES)))
    features[:, LOAD] = load
    return features


def test_levels_rise_with_the_cuts_that_are_reached() -> None:
    levels = by_load(10, 50).levels(rows([0, 9, 11, 49, 51]))
    assert levels.tolist() == [0, 0, 1, 1, 2]
    assert levels.dtype == np.int8


def test_saturated_is_saturated_although_the_medium_cut_is_not_reached() -> None:
    assert by_load(50, 10).levels(rows([20])).tolist() == [2]


def test_what_is_not_a_number_reaches_no_level() -> None:
    assert by_load(10, 50).levels(rows([np.nan])).tolist() == [0]


def test_no_candidates_have_no_levels() -> None:
    assert by_load(10, 50).levels(rows([])).tolist() == []


def test_the_observed_level_changes_at_the_bounds_of_the_zones() -> None:
    assert observed_levels(np.array([0.99, 1.0, 9.99, 10.0]), DEFAULT_ZONE).tolist() == [0, 1, 1, 2]


def test_a_classifier_survives_its_way_through_a_file() -> None:
    classifier = by_load(10, 50)
    assert msgspec.json.decode(msgspec.json.encode(classifier), type=ZoneClassifier) == classifier


@pytest.mark.parametrize(
    "damage",
    [
        {"weights": [[1.0] * 5] * 3},
        {"weights": [[1.0] * 4] * 2},
        {"weights": [[1.0] * 4 + [2 * MAX_WEIGHT]] * 2},
        {"weights": [[None] * 5] * 2},
        {"bias": [0.0]},
        {"bias": [0.0, 2 * MAX_WEIGHT]},
    ],
    ids=["three cuts", "a weight missing", "huge weight", "no numbers", "a bias missing", "huge bias"],
)
def test_a_damaged_classifier_is_not_decoded(damage: dict[str, object]) -> None:
    document = msgspec.to_builtins(by_load(10, 50)) | damage
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(document), type=ZoneClassifier)
