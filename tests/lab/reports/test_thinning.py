import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.observed import observed

from extproc.fleet.zone import Zone
from extproc.lab.reports.analysis_plots import thinned
from extproc.learning.analysis.zones import zone_masks
from extproc.learning.zone_bounds import DEFAULT_ZONE

counts = st.integers(0, 80)


@given(counts, counts, counts, st.integers(3, 60))
def test_no_more_points_than_asked_for_and_no_fewer_than_there_can_be(
    low: int, medium: int, saturated: int, most: int
) -> None:
    ttft_s = np.repeat([0.5, 5.0, 50.0], [low, medium, saturated])
    points = thinned(observed(ttft_s), DEFAULT_ZONE, np.random.default_rng(0), most)
    assert len(points) == min(most, len(ttft_s))
    assert len(np.unique(points.at_s)) == len(points)


def test_rare_saturated_requests_are_all_drawn() -> None:
    ttft_s = np.repeat([0.5, 50.0], [100_000, 200])
    points = thinned(observed(ttft_s), DEFAULT_ZONE, np.random.default_rng(0), 5_000)
    shown = {zone: int(mask.sum()) for zone, mask in zone_masks(points.ttft_s, DEFAULT_ZONE).items()}
    assert shown == {Zone.LOW: 4_800, Zone.MEDIUM: 0, Zone.SATURATED: 200}


def test_the_same_generator_draws_the_same_points() -> None:
    many = observed(np.full(9_000, 0.5))
    first, again = (thinned(many, DEFAULT_ZONE, np.random.default_rng(4)).at_s for _ in range(2))
    np.testing.assert_array_equal(first, again)
