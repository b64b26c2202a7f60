import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from extproc.learning.features import FEATURES
from extproc.learning.log_line import MAX_WEIGHT, LogLine

STEEPEST = LogLine((MAX_WEIGHT,) * len(FEATURES), 50.0)


@given(arrays(np.float64, (3, len(FEATURES)), elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_a_line_says_something_finite_of_any_row(rows: np.ndarray) -> None:
    with np.errstate(over="raise"):
        assert np.isfinite(np.exp(STEEPEST.predict(rows))).all()


def test_what_is_not_known_counts_as_zero() -> None:
    nothing, unknown = np.zeros((1, len(FEATURES))), np.full((1, len(FEATURES)), np.nan)
    assert STEEPEST.predict(unknown).tolist() == STEEPEST.predict(nothing).tolist() == [50.0]
