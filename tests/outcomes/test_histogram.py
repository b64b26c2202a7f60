from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.outcomes.histogram import Histogram

BOUNDS_S = (0.05, 0.1, 1.0, 100.0)


@given(st.lists(st.floats(1e-6, 86_400.0) | st.sampled_from(BOUNDS_S)))
def test_each_bucket_has_what_is_at_most_its_bound(durations_s: list[float]) -> None:
    histogram = Histogram(BOUNDS_S)
    for duration_s in durations_s:
        histogram.add(duration_s)
    cumulative = list(accumulate(histogram.counts))
    assert cumulative == [sum(duration_s <= bound for duration_s in durations_s) for bound in BOUNDS_S] + [
        len(durations_s)
    ]
    assert histogram.sum_s == pytest.approx(sum(durations_s))
