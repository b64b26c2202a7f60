import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.clean_sample import SAMPLE

from extproc.outcomes.outcome import Failure
from extproc.outcomes.outcome_counts import TTFT_BOUNDS_S, Histogram, OutcomeCounts, quantile_s
from extproc.outcomes.traffic_window import TrafficWindow
from extproc.policy.decision import Decision, DecisionCounts, Layer, Reason
from extproc.routing.counter_reading import CounterReading, backend_between, between, read_counters
from extproc.routing.traffic_history import STEP_S, STEPS, STEPS_OF_A_MINUTE, TrafficHistory

PLACED, REFUSED = Decision(Layer.LEAST_LOAD, Reason.LOW_ZONE), Decision(Layer.REJECT, Reason.SATURATED)


class Counted:
    """Counters, and readings of them."""

    def __init__(self) -> None:
        self.decisions = DecisionCounts()
        self.outcomes = OutcomeCounts()

    def happen(self, backend: str = "vllm-1", failure: str | None = None, ttft_s: float = 0.4) -> None:
        self.decisions.count(PLACED)
        sample = replace(SAMPLE, backend=backend, failure=failure, ttft_s=None if failure else ttft_s)
        self.outcomes.count(sample, None if failure else 2 * ttft_s)

    def read(self, at_s: float) -> CounterReading:
        return read_counters(self.decisions, self.outcomes, at_s)


@pytest.fixture
def counted() -> Counted:
    return Counted()


def test_traffic_is_what_was_counted_between_two_readings(counted: Counted) -> None:
    counted.happen()
    earlier = counted.read(10.0)
    counted.happen()
    counted.happen("vllm-2", Failure.CONNECT)
    counted.decisions.count(REFUSED)
    counted.outcomes.failed_open += 3
    assert between(earlier, counted.read(15.0)) == TrafficWindow(
        seconds=5.0,
        decisions={"least_load.low_zone": 2, "reject.saturated": 1},
        results={"ok": 1, "connect": 1},
        failed=1,
        failed_open=3,
        ttft_p50_s=pytest.approx(0.4),
        ttft_p99_s=pytest.approx(0.498),
        client_ttft_p50_s=pytest.approx(0.875),
        client_ttft_p99_s=pytest.approx(0.9975),
    )


def test_nothing_between_two_readings_is_no_traffic_and_no_ttft(counted: Counted) -> None:
    counted.happen()
    traffic = between(counted.read(1.0), counted.read(2.0))
    assert (traffic.decisions, traffic.results, traffic.failed) == ({}, {}, 0)
    assert (traffic.ttft_p50_s, traffic.client_ttft_p99_s) == (None, None)


def test_a_backend_that_leaves_takes_nothing_from_the_traffic_of_all(counted: Counted) -> None:
    start = counted.read(0.0)
    for backend in ("vllm-1", "vllm-2"):
        counted.happen(backend)
    earlier = counted.read(1.0)
    counted.outcomes.keep_only(frozenset({"vllm-2"}))
    counted.happen("vllm-2")
    later = counted.read(2.0)
    assert between(earlier, later).results == {"ok": 1}
    assert between(start, later).results == {"ok": 3}
    assert sum(later.ttft) == 3
    assert backend_between("vllm-1", start, later).results == {}


def test_a_backend_that_left_and_came_back_begins_anew(counted: Counted) -> None:
    for _ in range(5):
        counted.happen(ttft_s=0.4)
    earlier = counted.read(1.0)
    counted.outcomes.keep_only(frozenset())
    counted.happen(ttft_s=20.0)
    traffic = backend_between("vllm-1", earlier, counted.read(2.0))
    assert traffic.results == {"ok": 1}
    assert traffic.ttft_p50_s == pytest.approx(15.0)


def test_a_failure_of_a_client_is_none_of_the_backend(counted: Counted) -> None:
    start = counted.read(0.0)
    for failure in Failure:
        counted.happen(failure=failure)
    traffic = between(start, counted.read(1.0))
    assert sum(traffic.results.values()) == len(Failure)
    assert traffic.failed == len(Failure) - 4, "client_error, client_left, not_routed and overloaded"


@given(st.lists(st.floats(1e-4, 90.0), min_size=1), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_a_quantile_is_in_the_bucket_of_the_duration_of_that_rank(
    durations_s: Sequence[float], share: float
) -> None:
    histogram = Histogram(TTFT_BOUNDS_S)
    for duration_s in durations_s:
        histogram.add(duration_s)
    found_s = quantile_s(TTFT_BOUNDS_S, histogram.counts, share)
    if share == 0.0:
        assert found_s is None
        return
    true_s = sorted(durations_s)[math.ceil(share * len(durations_s)) - 1]
    upper = next(bound for bound in TTFT_BOUNDS_S if true_s <= bound)
    lower = max((bound for bound in TTFT_BOUNDS_S if bound < upper), default=0.0)
    assert found_s is not None
    assert lower <= found_s <= upper


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert quantile_s((1.0, 2.0), (0, 0, 5), 0.5) == 2.0
    assert quantile_s((1.0, 2.0), (0, 0, 0), 0.5) is None


def test_the_history_has_a_quarter_of_an_hour_and_no_more(counted: Counted) -> None:
    history = TrafficHistory(0.0)
    for step in range(1, 3 * STEPS + 1):
        counted.happen(failure=Failure.CONNECT if step == 2 * STEPS else None)
        history.end_step(counted.read(step * STEP_S))
    steps = history.steps
    assert len(steps) == STEPS
    assert sum(step.seconds for step in steps) == 900.0
    assert sum(sum(step.decisions.values()) for step in steps) == STEPS
    assert not any(step.failed for step in steps), "it is just too old"
    assert history.ended_s - history.minute_ago.at_s == 60.0 == STEPS_OF_A_MINUTE * STEP_S


def test_the_ttft_of_a_step_is_that_of_the_minute_which_ends_with_it(counted: Counted) -> None:
    history = TrafficHistory(0.0)
    for step in range(1, 30):
        if step == 5:
            counted.happen(ttft_s=4.0)
        history.end_step(counted.read(step * STEP_S))
    has_ttft = [number for number, step in enumerate(history.steps, 1) if step.ttft_p50_s is not None]
    assert has_ttft == list(range(5, 5 + STEPS_OF_A_MINUTE))
    assert [step.results for step in history.steps].count({"ok": 1}) == 1


def test_in_the_first_minute_a_minute_ago_is_the_start(counted: Counted) -> None:
    history = TrafficHistory(100.0)
    counted.happen()
    history.end_step(counted.read(105.0))
    minute = between(history.minute_ago, counted.read(107.0))
    assert (minute.seconds, minute.results) == (7.0, {"ok": 1})
