from itertools import pairwise

import numpy as np
import pytest

from extproc.lab.traffic.arrivals import Arrival
from extproc.lab.traffic.step_requests import DrawnRequests, RecordedRequests
from extproc.lab.traffic.trace import Prefixes, Trace
from extproc.lab.traffic.workload import Fixed, Step, Workload

PREFIXES = Prefixes(np.array([0, 0, 1, 2]), np.array([0, 1, 3]), np.array([1, 3, 4]), 64)
TRACE = Trace(np.array([0.0, 1.0, 8.0]), np.array([64, 128, 64]), np.array([1, 2, 3]), PREFIXES)
"""Three requests in eight seconds, of which the first two begin alike."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def arrivals(requests: RecordedRequests, rate: float, duration_s: float, each: int = 1) -> list[Arrival]:
    return list(requests.of_step(Step(1, rate, duration_s), each, None, rng()))


def test_drawn_requests_are_as_many_as_the_rate_says() -> None:
    requests = DrawnRequests(Workload(Fixed(4), Fixed(2)))
    found = list(requests.of_step(Step(1, 20.0, 3.0), 2, None, rng()))
    assert len(found) == 30
    assert {(each.prompt_tokens, each.output_tokens, each.content) for each in found} == {(4, 2, ())}
    assert all(earlier.at_s <= later.at_s for earlier, later in pairwise(found))


def test_a_trace_at_its_own_rate_is_as_it_was_recorded() -> None:
    found = arrivals(RecordedRequests(TRACE), rate=3 / 8, duration_s=8.1)
    assert [each.at_s for each in found] == pytest.approx([0.0, 1.0, 8.0])
    assert [(each.prompt_tokens, each.output_tokens) for each in found] == [(64, 1), (128, 2), (64, 3)]


def test_a_higher_rate_keeps_the_bursts() -> None:
    found = arrivals(RecordedRequests(TRACE), rate=3.0, duration_s=1.1)
    assert [each.at_s for each in found] == pytest.approx([0.0, 1 / 8, 1.0])


def test_of_pairs_there_are_half_as_many() -> None:
    found = arrivals(RecordedRequests(TRACE), rate=3.0, duration_s=2.1, each=2)
    assert [each.at_s for each in found] == pytest.approx([0.0, 2 / 8, 2.0])


def test_a_step_goes_on_where_the_last_one_ended() -> None:
    requests = RecordedRequests(TRACE)
    tokens = [
        [each.prompt_tokens for each in arrivals(requests, rate, seconds)]
        for rate, seconds in ((3 / 8, 0.5), (3.0, 0.5), (3.0, 0.1))
    ]
    assert tokens == [[64], [128], [64]]


@pytest.mark.parametrize("rate", [0.5, 3.0, 40.0])
def test_the_mean_rate_is_kept_over_many_passes_whose_beginnings_are_new(rate: float) -> None:
    found = arrivals(RecordedRequests(TRACE), rate, duration_s=300 / rate)
    assert len(found) == pytest.approx(300, abs=3 * 300 / 8)
    assert all(earlier.at_s <= later.at_s for earlier, later in pairwise(found))
    firsts = [each.content[0] for each in found]
    assert firsts[0] == firsts[1] != firsts[2]
    assert len(set(firsts)) == pytest.approx(2 * len(found) / 3, abs=2)


def test_requests_that_are_cut_to_the_context_are_counted() -> None:
    requests = RecordedRequests(TRACE)
    found = list(requests.of_step(Step(1, 3.0, 1.1), 1, 100, rng()))
    assert [each.prompt_tokens for each in found] == [64, 98, 64]
    assert requests.cut == 1


def test_each_seed_has_beginnings_of_its_own() -> None:
    one, other = (
        next(RecordedRequests(TRACE).of_step(Step(1, 3.0, 1.1), 1, None, rng(seed))).content[0]
        for seed in (1, 2)
    )
    assert one != other
