import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.idle_fleet import IdleFleet
from extproc.lab.evaluation.result import PolicyRun
from extproc.lab.evaluation.simulated_server import Server
from extproc.lab.evaluation.tally import HIGHEST_S, LOWEST_S, FineHistogram, Objectives, Tally
from extproc.lab.traffic.arrivals import Arrival

SPECS = parse_fleet("a100-8b*1:8,a100-8b*0.5:8")
IDLE = IdleFleet(SPECS)


def tally(from_s: float = 0.0, delay_limit_s: float = 2.0) -> Tally:
    return Tally([Server(spec) for spec in SPECS], Objectives(5.0, delay_limit_s, from_s))


def answer(counts: Tally, prompt_tokens: int, delay_s: float, at_s: float = 0.0) -> None:
    request = Arrival(at_s, prompt_tokens, 10)
    counts.arrived(request)
    counts.ended(request, 0, IDLE.fastest_ttft_s(prompt_tokens) + delay_s)


def result(counts: Tally) -> PolicyRun:
    return counts.result("any", 1, 300.0, (1.0, 1.0), {}, None)


def test_the_delay_does_not_depend_on_the_prompt() -> None:
    counts = tally()
    for prompt_tokens in (10, 5000, 60_000):
        answer(counts, prompt_tokens, 1.0)
    found = result(counts)
    assert [found.delay_s(percent) for percent in (1, 50, 99)] == pytest.approx([1.0] * 3, rel=0.003)
    assert (found.good, found.goodput) == (1.0, pytest.approx(2 / 3))


def test_good_is_the_share_of_all_requests_refused_and_failed_ones_included() -> None:
    counts = tally(delay_limit_s=1.0)
    for delay_s in (0.0, 0.99, 1.01, 30.0):
        answer(counts, 1000, delay_s)
    for lost in (counts.refused, counts.failed):
        counts.arrived(Arrival(0.0, 1000, 10))
        lost(Arrival(0.0, 1000, 10))
    assert result(counts).good == pytest.approx(2 / 6)


def test_what_a_cached_prefix_saves_makes_up_for_nothing_but_is_good() -> None:
    counts = tally(delay_limit_s=0.0)
    answer(counts, 10_000, -0.5)
    found = result(counts)
    assert found.good == 1.0
    assert found.delay_s(99) == pytest.approx(0.0, abs=2e-4)


def test_requests_before_the_first_counted_second_are_in_no_figure() -> None:
    counts = tally(from_s=120.0)
    for at_s in (0.0, 119.9):
        answer(counts, 100, 50.0, at_s)
        for ended in (counts.arrived, counts.refused, counts.failed):
            ended(Arrival(at_s, 100, 10))
    answer(counts, 100, 0.1, at_s=120.0)
    found = result(counts)
    assert (found.requests, found.refused, found.failed, found.good) == (1, 0, 0, 1.0)
    assert found.delay_s(99) == pytest.approx(0.1, rel=0.003)
    assert [backend.requests for backend in found.backends] == [1, 0]


def test_without_an_answer_there_is_no_delay_and_nothing_is_good() -> None:
    counts = tally()
    counts.arrived(Arrival(0.0, 100, 10))
    counts.refused(Arrival(0.0, 100, 10))
    found = result(counts)
    assert (found.good, found.delay_s(50)) == (0.0, None)


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
