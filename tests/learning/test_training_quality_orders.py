import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES
from extproc.learning.training_quality import last_ttft, least_load


def observed(at_s: list[float], ttft_s: list[float], backend: list[int]) -> Observations:
    features = np.arange(len(at_s) * len(FEATURES), dtype=float).reshape(-1, len(FEATURES))
    return Observations(np.array(at_s), features, np.array(ttft_s), np.array(backend, np.intp), ("a", "b"))


NOTHING = observed([], [], [])


def test_least_load_goes_by_the_load_that_was_met() -> None:
    assert least_load(observed([1, 2], [1, 1], [0, 1])).tolist() == [1.0, 1.0 + len(FEATURES)]


def test_the_last_ttft_is_that_of_the_same_backend_that_ended_last() -> None:
    before = observed([0.0, 0.5], [4.0, 1.0], [0, 1])
    seen = observed([3.0, 3.1, 5.0, 6.0], [1.0, 9.0, 9.0, 9.0], [0, 1, 0, 0])
    said = np.exp(last_ttft(before, seen))
    np.testing.assert_allclose(said, [np.median([4.0, 1.0]), 1.0, 1.0, 1.0])


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0.1, 10), st.integers(0, 1)), min_size=1, max_size=30))
def test_the_last_ttft_is_what_a_walk_through_time_finds(rows: list[tuple[float, float, int]]) -> None:
    at_s, ttft_s, backend = map(list, zip(*sorted(rows), strict=True))
    said = np.exp(last_ttft(NOTHING, observed(at_s, ttft_s, backend)))
    for row, at in enumerate(at_s):
        ended = [
            (began + took, earlier, took)
            for earlier, (began, took, other) in enumerate(zip(at_s, ttft_s, backend, strict=True))
            if other == backend[row] and began + took <= at
        ]
        np.testing.assert_allclose(said[row], max(ended)[2] if ended else np.median(ttft_s))
