import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from extproc.errors import ModelFileError
from extproc.learning.features import FEATURES, MONOTONE
from extproc.learning.line import MAX_WEIGHT, Line, check_line

STEEPEST = Line((MAX_WEIGHT,) * len(FEATURES), 50.0)


@given(arrays(np.float64, (3, len(FEATURES)), elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_a_line_says_something_finite_of_any_row(rows: np.ndarray) -> None:
    with np.errstate(over="raise"):
        assert np.isfinite(np.exp(STEEPEST.predict(rows))).all()


def test_what_is_not_known_counts_as_zero() -> None:
    nothing, unknown = np.zeros((1, len(FEATURES))), np.full((1, len(FEATURES)), np.nan)
    assert STEEPEST.predict(unknown).tolist() == STEEPEST.predict(nothing).tolist() == [50.0]


@pytest.mark.parametrize("feature", np.flatnonzero(MONOTONE))
def test_a_line_that_falls_with_a_monotone_feature_is_refused(feature: int) -> None:
    weights = [0.0] * len(FEATURES)
    weights[feature] = -0.01
    with pytest.raises(ModelFileError, match=FEATURES[feature]):
        check_line(Line(tuple(weights), 0.0))
