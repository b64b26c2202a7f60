from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from extproc.learning.dataset import (
    HELD_OUT_SHARE,
    Dropped,
    Observations,
    clean_observations,
    learnable,
    medium_zone,
    split_at_medium_zone,
    split_by_time,
)
from extproc.learning.features import DEFAULT_ZONE, FEATURES, TERMS, ZoneBounds

Columns = dict[str, np.ndarray[Any, Any]]


@pytest.fixture
def columns(samples_of: Callable[..., Columns]) -> Columns:
    return samples_of(n=50)


def test_a_sample_that_was_written_twice_counts_once(columns: Columns) -> None:
    twice = {name: np.concatenate([column, column[10:20]]) for name, column in columns.items()}
    observations, dropped = clean_observations(twice)
    assert dropped[Dropped.DUPLICATE] == 10
    np.testing.assert_array_equal(observations.at_s, clean_observations(columns)[0].at_s)


def estimated(estimate_s: list[float]) -> Observations:
    """Observations of which the estimate said so, whatever became of them."""
    n = len(estimate_s)
    features = np.zeros((n, len(FEATURES)))
    features[:, FEATURES.index("turns_s")] = estimate_s
    return Observations(np.arange(1.0, n + 1), features, np.full(n, 3.0), np.zeros(n, np.intp), ("a",))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("is_clean", False, Dropped.NOT_CLEAN),
        ("is_stream", False, Dropped.NOT_CLEAN),
        ("backend", None, Dropped.NOT_CLEAN),
        ("backend", "", Dropped.NOT_CLEAN),
        ("backend", "x" * 64, Dropped.NOT_CLEAN),
        ("at_s", np.nan, Dropped.BAD_TIME),
        ("at_s", -1.0, Dropped.BAD_TIME),
        ("at_s", np.inf, Dropped.BAD_TIME),
        ("at_s", 1e300, Dropped.BAD_TIME),
        ("load", np.nan, Dropped.BAD_FEATURES),
        ("num_running", -1.0, Dropped.BAD_FEATURES),
        ("num_waiting", np.inf, Dropped.BAD_FEATURES),
        ("kv_cache_fraction", 85.0, Dropped.BAD_FEATURES),
        ("input_tokens", 1e300, Dropped.BAD_FEATURES),
        ("ttft_s", np.nan, Dropped.BAD_TTFT),
        ("ttft_s", 0.0, Dropped.BAD_TTFT),
        ("ttft_s", -3.0, Dropped.BAD_TTFT),
        ("ttft_s", np.inf, Dropped.BAD_TTFT),
        ("ttft_s", 1e9, Dropped.BAD_TTFT),
        ("scrape_age_s", np.nan, Dropped.STALE_SIGNALS),
        ("scrape_age_s", 2.5, Dropped.STALE_SIGNALS),
        ("cached_tokens", 1e6, Dropped.CACHED),
        ("expected_cached_tokens", -1.0, Dropped.BAD_FEATURES),
        ("expected_cached_tokens", np.inf, Dropped.BAD_FEATURES),
        ("expected_cached_tokens", 1e300, Dropped.BAD_FEATURES),
        ("turns_s", -1.0, Dropped.BAD_FEATURES),
        ("own_prompt_s", np.inf, Dropped.BAD_FEATURES),
    ],
)
def test_a_sample_with_an_impossible_value_is_dropped_and_counted(
    columns: Columns, name: str, value: object, reason: Dropped
) -> None:
    columns[name][7] = value
    observations, dropped = clean_observations(columns)
    assert len(observations) == 49
    assert {key: count for key, count in dropped.items() if count} == {reason: 1}


def test_signals_grow_stale_at_the_age_at_which_serving_stops_using_them(columns: Columns) -> None:
    columns["scrape_age_s"][7] = 2.5
    assert clean_observations(columns, stale_after_s=3.0)[1][Dropped.STALE_SIGNALS] == 0
    assert clean_observations(columns, stale_after_s=2.4)[1][Dropped.STALE_SIGNALS] == 1


def with_input(columns: Columns, prompt: float, expected: float, cached: float = np.nan) -> Columns:
    """The same samples, of this many tokens each, of which some were expected and some found in the cache."""
    for name, value in {
        "input_tokens": prompt,
        "expected_cached_tokens": expected,
        "cached_tokens": cached,
    }.items():
        columns[name][:] = value
    return columns


def inputs(observations: Observations) -> set[float]:
    return set(observations.features[:, FEATURES.index("input_tokens")].tolist())


@pytest.mark.parametrize(
    ("expected", "computed"), [(0.0, 1000.0), (700.0, 300.0), (1000.0, 0.0), (1000.5, 0.0), (np.nan, 1000.0)]
)
def test_the_input_is_the_part_of_the_prompt_that_was_not_expected_in_the_cache(
    columns: Columns, expected: float, computed: float
) -> None:
    observations, _ = clean_observations(with_input(columns, 1000.0, expected))
    assert (len(observations), inputs(observations)) == (50, {computed})


@pytest.mark.parametrize(("cached", "dropped"), [(700.0, 0), (750.0, 0), (100.0, 0), (850.0, 50)])
def test_a_prompt_of_which_the_cache_held_more_than_expected_is_dropped(
    columns: Columns, cached: float, dropped: int
) -> None:
    found = clean_observations(with_input(columns, 1000.0, 700.0, cached))[1]
    assert found[Dropped.CACHED] == dropped


def test_a_sample_with_several_faults_is_counted_once(columns: Columns) -> None:
    columns["load"][3] = columns["ttft_s"][3] = np.nan
    assert sum(clean_observations(columns)[1].values()) == 1


def test_observations_are_in_the_order_of_time(columns: Columns) -> None:
    observations, _ = clean_observations({name: column[::-1] for name, column in columns.items()})
    assert observations.at_s.tolist() == sorted(columns["at_s"].tolist())
    assert observations.ttft_s.tolist() == columns["ttft_s"].tolist()
    assert [observations.fleet[index] for index in observations.backend] == columns["backend"].tolist()


def test_nothing_at_all_gives_no_observations(columns: Columns) -> None:
    observations, _ = clean_observations({name: column[:0] for name, column in columns.items()})
    assert (len(observations), observations.fleet) == (0, ())


def test_the_medium_zone_is_that_of_the_estimate_and_learning_begins_before_it() -> None:
    observed, zone = estimated([0.0, 0.49, 0.5, 0.99, 1.0, 9.99, 10.0, 60.0]), ZoneBounds(1.0, 10.0)
    inside, outside = learnable(observed, zone)
    assert inside.estimate_s.tolist() == [0.5, 0.99, 1.0, 9.99]
    assert outside == {Dropped.NO_ESTIMATE: 1, Dropped.LOW_ZONE: 1, Dropped.SATURATED_ZONE: 2}
    assert medium_zone(observed, zone).estimate_s.tolist() == [1.0, 9.99]


def test_samples_without_an_estimate_are_kept_for_people_and_not_learned_from(columns: Columns) -> None:
    for name in TERMS:
        columns[name][:] = np.nan
    observations, dropped = clean_observations(columns)
    assert not any(dropped.values())
    assert learnable(observations, DEFAULT_ZONE)[1][Dropped.NO_ESTIMATE] == 50


def test_the_newest_quarter_is_held_out() -> None:
    older, newest = split_by_time(estimated([1.0] * 10), 0.25)
    assert (older.at_s.tolist(), newest.at_s.tolist()) == ([1, 2, 3, 4, 5, 6, 7, 8], [9, 10])


def test_the_split_is_by_time_in_all_zones_and_by_rows_in_the_medium_one(
    samples_of: Callable[..., Columns],
) -> None:
    observations, _ = clean_observations(samples_of(n=2000, swing=60, slowness=(1.0, 4.0)))
    older, newest = split_at_medium_zone(observations, DEFAULT_ZONE)
    assert older.at_s.max() < newest.at_s.min()
    assert len(older) + len(newest) == len(observations)
    expected = split_by_time(medium_zone(observations, DEFAULT_ZONE), HELD_OUT_SHARE)
    for part, medium in zip((older, newest), expected, strict=True):
        assert medium_zone(part, DEFAULT_ZONE).at_s.tolist() == medium.at_s.tolist()


def test_an_idle_hour_at_the_end_leaves_medium_samples_to_judge_by(
    samples_of: Callable[..., Columns],
) -> None:
    columns = samples_of(n=1000)
    columns["turns_s"][400:] = 0.1
    observations, _ = clean_observations(columns)
    n_medium = len(medium_zone(observations, DEFAULT_ZONE))
    newest = split_at_medium_zone(observations, DEFAULT_ZONE)[1]
    assert len(medium_zone(newest, DEFAULT_ZONE)) == pytest.approx(n_medium / 4, abs=1)


def test_without_a_medium_zone_nothing_is_held_out(samples_of: Callable[..., Columns]) -> None:
    observations, _ = clean_observations(samples_of(n=100))
    older, newest = split_at_medium_zone(observations, ZoneBounds(1e4, 2e4))
    assert (len(older), len(newest)) == (100, 0)
