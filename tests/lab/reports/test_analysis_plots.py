import numpy as np
import pytest
from support.observed import observed

from extproc.lab.reports.analysis_plots import ttft_histogram, ttft_over, waiting_over_ttft
from extproc.learning.analysis.knee import Knee
from extproc.learning.features import FEATURES
from extproc.learning.zone_bounds import DEFAULT_ZONE

KNEE = Knee("vllm-1", 500, 40.0, 38.0, 42.0, 1.0, 0.01, 0.5, 48.0)


@pytest.mark.parametrize("ttft_s", [[0.5], [1e-6, 86_400.0], np.geomspace(0.05, 60, 500), np.full(40, 2.0)])
def test_whatever_ttfts_there_are_can_be_plotted(ttft_s: list[float]) -> None:
    points = observed(ttft_s, load=np.arange(len(ttft_s)))
    pictures = [
        ttft_histogram(points, DEFAULT_ZONE),
        waiting_over_ttft(points, DEFAULT_ZONE),
        *(ttft_over(name, name, points, DEFAULT_ZONE) for name in FEATURES),
    ]
    assert all(picture.startswith(b"\x89PNG\r\n") for picture in pictures)


def test_a_knee_is_drawn_into_the_picture() -> None:
    points = observed(np.geomspace(0.05, 60, 50), load=np.arange(50) * 2)
    without = ttft_over("load", "load", points, DEFAULT_ZONE, [Knee("vllm-1", 9, unstated="too few")])
    assert without == ttft_over("load", "load", points, DEFAULT_ZONE)
    assert ttft_over("load", "load", points, DEFAULT_ZONE, [KNEE]) != without
