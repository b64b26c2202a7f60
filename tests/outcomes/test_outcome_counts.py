import pytest
from msgspec.structs import replace
from support.clean_sample import SAMPLE

from extproc.outcomes.outcome_counts import TTFT_BOUNDS_S, OutcomeCounts


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
