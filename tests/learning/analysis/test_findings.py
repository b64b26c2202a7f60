"""The findings that the project comes from, on simulated backends with a limit before the engine."""

from functools import cache

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.observed import observed
from support.simulated_samples import Backend, Traffic, columns_of, simulated_samples

from extproc.config.stages import parse_config
from extproc.fleet.zone import Zone
from extproc.learning.analysis.congestion import WaitLocation
from extproc.learning.analysis.correlation import Correlation, Unstated
from extproc.learning.analysis.findings import MAX_BACKENDS, Analysis, analyze, zones_of
from extproc.learning.analysis.summary import summary
from extproc.learning.features import DEFAULT_ZONE, GAUGES, ZoneBounds
from extproc.outcomes.facts import Sample

RATE_STEPS = ((0.08, 40), (0.3, 20), (0.6, 20), (0.8, 30), (0.9, 40), (1.2, 10), (2.5, 40), (0, 60))
"""Shares of the capacity, and seconds: from idle to well past saturation, and time to drain."""

SPEED = {16: 0.0412, 32: 0.0775, 64: 0.1502}
"""At it a limit of this many is met at a request a second for each 16 of it."""


def limited(limit: int, name: str = "sim-1") -> Backend:
    return Backend(name=name, speed=SPEED[limit], http_limit=limit)


def traffic(capacity: float, passes: int = 4) -> Traffic:
    steps = [(share * capacity, seconds) for share, seconds in RATE_STEPS]
    return Traffic(steps, passes, prompt_tokens=200, prompt_sigma=0.6, output_tokens=24, output_sigma=0.1)


def analysis_of(*runs: tuple[Backend, Traffic, int]) -> Analysis:
    samples = [sample for run in runs for sample in simulated_samples(*run)]
    return analyze(columns_of(samples), np.random.default_rng(0))[0]


@cache
def limited_analysis(limit: int, seed: int) -> Analysis:
    return analysis_of((limited(limit), traffic(limit / 16), seed))


def correlation(analysis: Analysis, zone: Zone, feature: str) -> Correlation:
    [one] = [each for each in analysis.correlations if each.zone is zone and each.feature == feature]
    return one


def pearson(analysis: Analysis, zone: Zone, feature: str) -> float:
    coefficient = correlation(analysis, zone, feature).pearson
    assert coefficient is not None
    return coefficient.r


def pearson_or_constant(analysis: Analysis, zone: Zone, feature: str) -> float:
    one = correlation(analysis, zone, feature)
    return 0.0 if one.unstated is Unstated.CONSTANT else pearson(analysis, zone, feature)


with_limits = pytest.mark.parametrize(
    ("limit", "seed"), [(16, 0), (16, 1), (32, 0), (32, 1), (64, 0), (64, 1)]
)


@with_limits
def test_there_are_three_zones(limit: int, seed: int) -> None:
    assert all(zone.share > 0.1 for zone in limited_analysis(limit, seed).zones[0].zones)


@with_limits
def test_ttft_follows_running_in_the_medium_zone_only(limit: int, seed: int) -> None:
    analysis = limited_analysis(limit, seed)
    medium = pearson(analysis, Zone.MEDIUM, "num_running")
    assert medium > 0.5
    assert pearson(analysis, Zone.LOW, "num_running") < medium - 0.1
    assert abs(pearson_or_constant(analysis, Zone.SATURATED, "num_running")) < 0.2


@with_limits
def test_ttft_is_load_when_saturated(limit: int, seed: int) -> None:
    assert pearson(limited_analysis(limit, seed), Zone.SATURATED, "load") > 0.98


@with_limits
def test_waiting_says_little_about_ttft_and_no_request_waits_in_the_engine(limit: int, seed: int) -> None:
    analysis = limited_analysis(limit, seed)
    for zone in (Zone.MEDIUM, Zone.SATURATED):
        assert abs(pearson_or_constant(analysis, zone, "num_waiting")) < 0.3
    [congestion] = analysis.congestion
    assert congestion.place is WaitLocation.BEFORE_ENGINE
    assert congestion.is_running_pinned
    assert congestion.running_top == limit
    assert congestion.queue_seen_share is not None
    assert congestion.queue_seen_share < 0.05


@with_limits
def test_the_proposed_threshold_is_the_limit_within_15_percent(limit: int, seed: int) -> None:
    analysis = limited_analysis(limit, seed)
    guard = parse_config(f"backends: [{{name: a, url: 'http://127.0.0.1:1'}}]\n{analysis.yaml}", "").guard
    assert guard.max_active == pytest.approx(limit, rel=0.15)
    [knee] = analysis.knees
    assert knee.low is not None
    assert knee.high is not None
    assert knee.low < limit * 1.05
    assert limit * 0.95 < knee.high


def test_a_small_batch_queues_in_the_engine_where_waiting_tells() -> None:
    backend = Backend(speed=SPEED[32], max_num_seqs=32)
    analysis = analysis_of((backend, traffic(2), 0))
    assert analysis.congestion[0].place is WaitLocation.IN_ENGINE
    assert pearson(analysis, Zone.SATURATED, "num_waiting") > 0.95
    assert analysis.settings[0].value == pytest.approx(32, rel=0.15)


def test_unequal_backends_are_recognized_and_each_finds_its_limit_by_itself() -> None:
    analysis = analysis_of(
        (limited(64, "large"), traffic(4, passes=3), 0), (limited(16, "small"), traffic(1, passes=3), 0)
    )
    assert [knee.backend for knee in analysis.knees] == [None, "large", "small"]
    large, small = analysis.knees[1:]
    assert large.load == pytest.approx(64, rel=0.15)
    assert small.load == pytest.approx(16, rel=0.15)
    assert analysis.settings[0].value == "auto"
    assert [zones.backend for zones in analysis.zones] == [None, "large", "small"]


def test_of_idle_backends_nothing_is_proposed() -> None:
    analysis = analysis_of((limited(32), Traffic([(0.1, 600)]), 0))
    assert analysis.count > 30
    assert all(setting.value is None for setting in analysis.settings)
    assert "no knee of TTFT over load" in " ".join(summary(analysis))


def test_of_ten_samples_nothing_is_said_but_their_number() -> None:
    analysis = analysis_of((limited(32), Traffic([(1, 10)]), 0))
    assert 0 < analysis.count < 30
    assert {each.unstated for each in analysis.correlations} == {Unstated.TOO_FEW}
    assert all(setting.value is None for setting in analysis.settings)


def test_of_no_samples_nothing_is_said() -> None:
    columns = {name: column[:0] for name, column in columns_of(one_pass()).items()}
    analysis, observations = analyze(columns, np.random.default_rng(0))
    assert (analysis.rows, analysis.count, len(observations), analysis.knees) == (0, 0, 0, ())
    assert summary(analysis) == ["Of 0 samples none can be used: there is nothing to say."]


@cache
def one_pass() -> tuple[Sample, ...]:
    return tuple(simulated_samples(limited(16), traffic(1, passes=1), 0))


def test_the_numbers_are_json_without_nan() -> None:
    text = msgspec.json.encode(limited_analysis(16, 0))
    decoded = msgspec.json.decode(text)
    assert decoded["knees"][0]["load"] == limited_analysis(16, 0).knees[0].load
    assert {each["feature"] for each in decoded["correlations"]} == set(GAUGES)
    assert b"NaN" not in text


def test_a_store_full_of_names_is_looked_at_by_its_largest_backends() -> None:
    columns = columns_of(one_pass())
    count = len(columns["at_s"])
    columns["backend"] = np.array([f"b{row % 90}" for row in range(count)], dtype=object)
    analysis, _ = analyze(columns, np.random.default_rng(0))
    assert (analysis.backends, analysis.listed, len(analysis.congestion)) == (90, MAX_BACKENDS, MAX_BACKENDS)
    assert len(summary(analysis)) < 30


def test_garbage_is_dropped_and_counted() -> None:
    columns = columns_of(one_pass())
    rows = len(columns["at_s"])
    for name, place, value in (
        ("load", 3, np.nan),
        ("ttft_s", 5, -1.0),
        ("num_waiting", 7, 1e300),
        ("at_s", 9, np.inf),
    ):
        columns[name][place] = value
    analysis, _ = analyze(columns, np.random.default_rng(0))
    assert (analysis.rows, analysis.count, sum(analysis.dropped.values())) == (rows, rows - 4, 4)


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
