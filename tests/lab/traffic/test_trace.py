from itertools import takewhile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.lab.engine.engine import Engine
from extproc.lab.engine.engine_profile import EngineLimits, shipped_profile
from extproc.lab.traffic.arrivals import Arrival
from extproc.lab.traffic.trace import Prefixes, Replay, Trace

BLOCK = 64


def trace_of(prompts: list[tuple[list[int], int]]) -> Trace:
    """One request a second, each with the numbers of its blocks and the tokens of its last one."""
    lengths = [(len(numbers) - 1) * BLOCK + last for numbers, last in prompts]
    ends = np.cumsum([len(numbers) for numbers, _ in prompts])
    flat = np.array([number for numbers, _ in prompts for number in numbers])
    prefixes = Prefixes(flat, np.concatenate(([0], ends[:-1])), ends, BLOCK)
    count = len(prompts)
    return Trace(np.arange(count) * 1.0, np.array(lengths), np.full(count, 4), prefixes)


def test_a_trace_is_replayed_as_it_is_but_for_what_the_context_does_not_hold() -> None:
    trace = Trace(np.array([0.0, 0.5]), np.array([100, 9000]), np.array([10, 20]))
    replay = Replay(trace, 1000)
    assert list(replay.arrivals(np.random.default_rng(0))) == [Arrival(0.0, 100, 10), Arrival(0.5, 980, 20)]
    assert (trace.longer_than(1000), trace.longer_than(9020), trace.longest_tokens) == (1, 0, 9020)


def test_without_a_context_nothing_is_cut() -> None:
    trace = Trace(np.array([0.0]), np.array([9000]), np.array([20]))
    assert [each.prompt_tokens for each in trace.arrivals()] == [9000]


def test_a_prompt_that_is_cut_has_the_blocks_that_are_left() -> None:
    (whole,), (cut,) = (list(trace_of([([3, 4], BLOCK)]).arrivals(context)) for context in (1000, 104))
    assert (len(whole.content), len(cut.content)) == (8, 6)
    assert cut.prompt_tokens == 100
    assert whole.content[:6] == cut.content


def test_stretching_keeps_all_but_the_times_and_the_first_seconds_are_those_before() -> None:
    trace = trace_of([([0], 10), ([1], 20), ([0, 2], 30), ([3], 40)])
    slow = trace.stretched(2.5)
    assert slow.at_s.tolist() == [0.0, 2.5, 5.0, 7.5]
    assert [len(slow.first(seconds)) for seconds in (0.1, 5.0, 5.1, 100.0)] == [1, 2, 3, 4]
    expected = [(each.prompt_tokens, each.content) for each in trace.arrivals()][:3]
    assert [(each.prompt_tokens, each.content) for each in slow.first(5.1).arrivals()] == expected


def test_another_base_shares_nothing_with_the_first_one() -> None:
    trace = trace_of([([0, 1, 2], 64), ([0, 1, 5], 64)])
    assert trace.prefixes is not None
    one, other = (
        {block for each in trace.arrivals(base=base) for block in each.content}
        for base in (0, trace.prefixes.width)
    )
    assert not one & other


def test_more_requests_than_a_batch_come_in_order_with_their_own_contents() -> None:
    count = 3000
    trace = trace_of([([number], 64) for number in range(count)])
    arrivals = list(trace.arrivals())
    assert [each.at_s for each in arrivals] == list(range(count))
    assert [each.content[0] for each in arrivals] == [4 * number for number in range(count)]


PATHS = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(0, 2), max_size=5), st.integers(1, BLOCK)), min_size=1
)


@given(PATHS)
def test_the_engine_finds_exactly_as_much_as_two_prompts_share(
    paths: list[tuple[int, list[int], int]],
) -> None:
    """Numbers stand for a block and all before it, so paths in a tree are what a trace may have."""
    names: dict[tuple[int, ...], int] = {}
    prompts = []
    for first, others, last in paths:
        path = (first, *others)
        numbers = [names.setdefault(path[: end + 1], len(names)) for end in range(len(path))]
        prompts.append((numbers, last))
    engine = Engine(shipped_profile("a100-8b"), EngineLimits(kv_cache_tokens=1 << 20))
    seen: list[list[int]] = []
    for number, arrival in enumerate(trace_of(prompts).arrivals()):
        hits = engine.counters.prefix_hits
        engine.submit(str(number), arrival.prompt_tokens, arrival.output_tokens, 0.0, arrival.content)
        while engine.begin_run(0.0) is not None:
            engine.end_run(0.0)
        content = list(arrival.content)
        shared = max((_shared(content, other) for other in seen), default=0)
        largest = (arrival.prompt_tokens - 1) // 16  # one token is computed, for its logits
        assert engine.counters.prefix_hits - hits == 16 * min(shared, largest)
        seen.append(content)


def _shared(one: list[int], other: list[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@pytest.mark.parametrize("tokens", [1, 15, 16, 63, 64, 65])
def test_a_content_names_the_full_blocks_of_the_prompt(tokens: int) -> None:
    numbers = list(range(-(-tokens // BLOCK)))
    (arrival,) = trace_of([(numbers, tokens - BLOCK * (len(numbers) - 1))]).arrivals()
    assert arrival.prompt_tokens == tokens
    assert list(arrival.content) == list(range(tokens // 16))
