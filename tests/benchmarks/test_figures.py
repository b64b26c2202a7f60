import msgspec
import pytest

from benchmarks.ranking.figures import NOT_ANSWERED_S, TTFTS, Figures, goodput_gain, measured, ttft_gain

P99 = TTFTS["TTFT p99"]


def test_goodput_is_of_all_requests_and_ttft_of_the_answered_ones():
    run = measured([0.1] * 6 + [3.0] * 2, refused=1, failed=1, slo_s=2.0)
    assert (run.requests, run.goodput) == (10, 0.6)
    assert run.p50_s == pytest.approx(0.1, rel=0.01)
    assert run.p99_s == pytest.approx(3.0, rel=0.01)


def test_a_policy_that_answers_nothing_is_worse_than_any():
    nothing = measured([], refused=3, failed=0, slo_s=2.0)
    assert (nothing.p99_s, nothing.goodput) == (NOT_ANSWERED_S, 0.0)
    assert ttft_gain(P99, measured([9.0], 0, 0, 2.0), nothing) == 1.0


def test_a_shorter_ttft_and_more_in_time_are_gains():
    ours, theirs = measured([1.0, 1.0], 0, 0, 2.0), measured([1.0, 4.0], 0, 0, 2.0)
    assert ttft_gain(P99, ours, theirs) == pytest.approx(0.75, abs=0.01)
    assert ttft_gain(P99, theirs, ours) < 0
    assert goodput_gain(ours, theirs) == 0.5
    assert goodput_gain(theirs, ours) == -0.5


def test_figures_can_be_written_as_json():
    run = measured([0.1, 3.0], refused=1, failed=1, slo_s=2.0)
    assert msgspec.json.decode(msgspec.json.encode(run), type=Figures) == run
