import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.observed import observed

from extproc.fleet.zone import Zone
from extproc.learning.analysis.zones import zones_of
from extproc.learning.features import DEFAULT_ZONE, ZoneBounds


@given(st.lists(st.floats(1e-6, 1e5), max_size=50))
def test_every_sample_is_in_exactly_one_zone(ttft_s: list[float]) -> None:
    masks = DEFAULT_ZONE.masks(np.array(ttft_s))
    assert np.sum(list(masks.values()), axis=0).tolist() == [1] * len(ttft_s)


def test_a_zone_begins_at_its_lower_bound() -> None:
    zones = zones_of(observed([0.99, 1.0, 9.99, 10.0, 10.1]), DEFAULT_ZONE, None).zones
    assert [(zone.zone, zone.count) for zone in zones] == [
        (Zone.LOW, 1),
        (Zone.MEDIUM, 2),
        (Zone.SATURATED, 2),
    ]


def test_bounds_are_arguments() -> None:
    zones = zones_of(observed([0.1, 0.3, 0.5]), ZoneBounds(0.2, 0.4), None).zones
    assert [zone.share for zone in zones] == pytest.approx([1 / 3] * 3)


def test_quantiles_are_those_of_the_zone() -> None:
    pooled = zones_of(observed(np.linspace(0.001, 2, 2000)), DEFAULT_ZONE, "vllm-1")
    assert pooled.ttft is not None
    assert pooled.ttft.p50_s == pytest.approx(1.0, rel=0.01)
    low = pooled.zones[0].ttft
    assert low is not None
    assert [low.p5_s, low.p99_s] == pytest.approx([0.05, 0.99], rel=0.02)


def test_an_empty_zone_has_no_quantiles() -> None:
    empty = zones_of(observed([]), DEFAULT_ZONE, None)
    assert [(zone.count, zone.share, zone.ttft) for zone in empty.zones] == [(0, 0.0, None)] * 3
