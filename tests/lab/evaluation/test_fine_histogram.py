import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.lab.evaluation.fine_histogram import HIGHEST_S, LOWEST_S, FineHistogram


@settings(deadline=None)
@given(st.lists(st.floats(LOWEST_S, HIGHEST_S), min_size=1, max_size=200), st.floats(0.01, 1))
def test_quantiles_are_within_a_quarter_of_a_percent(ttfts_s: list[float], share: float) -> None:
    histogram = FineHistogram()
    histogram.add(np.array(ttfts_s))
    quantiles_s = histogram.quantiles_s(share)
    assert quantiles_s is not None
    exact_s = np.quantile(ttfts_s, share, method="inverted_cdf")
    assert quantiles_s[0] == pytest.approx(exact_s, rel=0.0026)
    assert histogram.count == len(ttfts_s)
    assert histogram.sum_s == pytest.approx(sum(ttfts_s))


def test_without_requests_there_are_no_quantiles() -> None:
    assert FineHistogram().quantiles_s(0.5) is None


def test_values_out_of_range_count_at_the_nearest_bound() -> None:
    histogram = FineHistogram()
    histogram.add(np.array([0.0, 1e9]))
    low_high = histogram.quantiles_s(0.5, 1.0)
    assert low_high == (pytest.approx(LOWEST_S, rel=0.01), pytest.approx(HIGHEST_S, rel=0.01))
