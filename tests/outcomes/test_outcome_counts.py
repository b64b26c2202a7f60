from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.clean_sample import SAMPLE

from extproc.outcomes.outcome_counts import TTFT_BOUNDS_S, Histogram, OutcomeCounts


@pytest.fixture
def counts() -> OutcomeCounts:
    counts = OutcomeCounts()
    for backend in ("vllm-1", "vllm-2"):
        counts.count(replace(SAMPLE, backend=backend))
        counts.count(replace(SAMPLE, backend=backend, failure="connect", ttft_s=None))
    return counts


def test_outcomes_are_counted_by_backend_and_result(counts: OutcomeCounts) -> None:
    counts.count(SAMPLE)
    assert counts.by_result == {
        ("vllm-1", "ok"): 2,
        ("vllm-1", "connect"): 1,
        ("vllm-2", "ok"): 1,
        ("vllm-2", "connect"): 1,
    }


def test_an_outcome_without_a_ttft_is_in_no_bucket(counts: OutcomeCounts) -> None:
    counts.count(replace(SAMPLE, backend="vllm-3", ttft_s=None))
    assert counts.ttft.keys() == {"vllm-1", "vllm-2"}
    assert sum(counts.ttft["vllm-1"].counts) == 1
    assert counts.ttft["vllm-1"].sum_s == 0.42


def test_the_times_of_clients_are_counted_besides_and_stay_when_a_backend_leaves(
    counts: OutcomeCounts,
) -> None:
    counts.count(SAMPLE, 3.0)
    counts.keep_only(frozenset())
    assert (sum(counts.client_ttft.counts), counts.client_ttft.sum_s) == (1, 3.0)


def test_a_backend_that_left_is_forgotten_and_the_others_go_on(counts: OutcomeCounts) -> None:
    counts.keep_only(frozenset({"vllm-2", "vllm-9"}))
    counts.count(replace(SAMPLE, backend="vllm-2"))
    assert counts.by_result == {("vllm-2", "ok"): 2, ("vllm-2", "connect"): 1}
    assert counts.ttft.keys() == {"vllm-2"}
    assert sum(counts.ttft["vllm-2"].counts) == 2


def test_a_backend_that_comes_back_starts_afresh(counts: OutcomeCounts) -> None:
    counts.keep_only(frozenset())
    counts.count(SAMPLE)
    assert counts.by_result == {("vllm-1", "ok"): 1}
    assert sum(counts.ttft["vllm-1"].counts) == 1


def test_bounds_ascend() -> None:
    assert list(TTFT_BOUNDS_S) == sorted(set(TTFT_BOUNDS_S))


BOUNDS_S = (0.05, 0.1, 1.0, 100.0)


@given(st.lists(st.floats(1e-6, 86_400.0) | st.sampled_from(BOUNDS_S)))
def test_each_bucket_has_what_is_at_most_its_bound(durations_s: list[float]) -> None:
    histogram = Histogram(BOUNDS_S)
    for duration_s in durations_s:
        histogram.add(duration_s)
    cumulative = list(accumulate(histogram.counts))
    assert cumulative == [sum(duration_s <= bound for duration_s in durations_s) for bound in BOUNDS_S] + [
        len(durations_s)
    ]
    assert histogram.sum_s == pytest.approx(sum(durations_s))
