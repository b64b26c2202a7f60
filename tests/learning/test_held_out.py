from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from extproc.learning.dataset import clean_observations, medium_zone, split_by_time
from extproc.learning.held_out import HELD_OUT_SHARE, split_at_medium_zone
from extproc.learning.zone_bounds import DEFAULT_ZONE, ZoneBounds

Columns = dict[str, np.ndarray[Any, Any]]


def test_the_split_is_by_time_in_all_zones_and_by_rows_in_the_medium_one(
    samples_of: Callable[..., Columns],
) -> None:
    observations, _ = clean_observations(samples_of(n=2000, swing=60, slowness=(1.0, 4.0)))
    older, newest = split_at_medium_zone(observations, DEFAULT_ZONE)
    assert older.at_s.max() < newest.at_s.min()
    assert len(older) + len(newest) == len(observations)
    expected = split_by_time(medium_zone(observations, DEFAULT_ZONE)[0], HELD_OUT_SHARE)
    for part, medium in zip((older, newest), expected, strict=True):
        assert medium_zone(part, DEFAULT_ZONE)[0].at_s.tolist() == medium.at_s.tolist()


def test_an_idle_hour_at_the_end_leaves_medium_samples_to_judge_by(
    samples_of: Callable[..., Columns],
) -> None:
    columns = samples_of(n=1000)
    columns["ttft_s"][400:] = 0.1
    observations, _ = clean_observations(columns)
    n_medium = len(medium_zone(observations, DEFAULT_ZONE)[0])
    newest = split_at_medium_zone(observations, DEFAULT_ZONE)[1]
    assert len(medium_zone(newest, DEFAULT_ZONE)[0]) == pytest.approx(n_medium / 4, abs=1)


def test_without_a_medium_zone_nothing_is_held_out(samples_of: Callable[..., Columns]) -> None:
    observations, _ = clean_observations(samples_of(n=100))
    older, newest = split_at_medium_zone(observations, ZoneBounds(1e4, 2e4))
    assert (len(older), len(newest)) == (100, 0)
