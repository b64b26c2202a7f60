import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.observed import observed

from extproc.fleet.zone import Zone
from extproc.lab.reports.analysis_plots import thinned, ttft_histogram, ttft_over, waiting_over_ttft
from extproc.learning.analysis.knee import Knee
from extproc.learning.features import DEFAULT_ZONE

counts = st.integers(0, 80)

KNEE = Knee("vllm-1", 500, 40.0, 38.0, 42.0, 1.0, 0.01, 0.5, 48.0)


@pytest.mark.parametrize("ttft_s", [[0.5], [1e-6, 86_400.0], np.geomspace(0.05, 60, 500), np.full(40, 2.0)])
def test_whatever_ttfts_there_are_can_be_plotted(ttft_s: list[float]) -> None:
    points = observed(ttft_s, load=np.arange(len(ttft_s)))
    pictures = [
        ttft_histogram(points, DEFAULT_ZONE),
        waiting_over_ttft(points, DEFAULT_ZONE),
        ttft_over("load", "load", points, DEFAULT_ZONE),
    ]
    assert all(picture.startswith(b"\x89PNG\r\n") for picture in pictures)


def test_a_knee_is_drawn_into_the_picture() -> None:
    points = observed(np.geomspace(0.05, 60, 50), load=np.arange(50) * 2)
    without = ttft_over("load", "load", points, DEFAULT_ZONE, [Knee("vllm-1", 9, unstated="too few")])
    assert without == ttft_over("load", "load", points, DEFAULT_ZONE)
    assert ttft_over("load", "load", points, DEFAULT_ZONE, [KNEE]) != without


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
    shown = {zone: int(mask.sum()) for zone, mask in DEFAULT_ZONE.masks(points.ttft_s).items()}
    assert shown == {Zone.LOW: 4_800, Zone.MEDIUM: 0, Zone.SATURATED: 200}


def test_the_same_generator_draws_the_same_points() -> None:
    many = observed(np.full(9_000, 0.5))
    first, again = (thinned(many, DEFAULT_ZONE, np.random.default_rng(4)).at_s for _ in range(2))
    np.testing.assert_array_equal(first, again)
