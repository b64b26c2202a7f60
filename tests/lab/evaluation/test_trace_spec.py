from dataclasses import replace

import numpy as np
import pytest
from support.evaluated_scenarios import offered_scenario

from extproc.errors import ConfigError
from extproc.lab.evaluation.evaluator import evaluate
from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.offered_load import LONGEST_CONTEXT, OfferedLoad, offered_load
from extproc.lab.evaluation.trace_spec import MAX_DURATION_S, TraceSpec
from extproc.lab.traffic.trace import Prefixes, Replay, Trace

POLICIES = ("layered", "round-robin", "least-in-flight", "token-load", "queue-kv", "oracle")


def bursty(count: int = 400, prompt_tokens: int = 200, output_tokens: int = 20) -> Trace:
    """Twenty at each moment, the moments ten seconds apart."""
    return Trace(
        np.repeat(np.arange(count // 20) * 10.0, 20),
        np.full(count, prompt_tokens),
        np.full(count, output_tokens),
    )


def with_prefixes(trace: Trace, shared_blocks: int, kinds: int) -> Trace:
    """All prompts of a kind begin with the same blocks of 512 tokens, and end with one of their own."""
    count = len(trace)
    kind = np.arange(count) % kinds
    shared = kind[:, None] * shared_blocks + np.arange(shared_blocks)
    own = kinds * shared_blocks + np.arange(count)
    numbers = np.concatenate((shared, own[:, None]), axis=1)
    ends = np.arange(1, count + 1) * (shared_blocks + 1)
    prefixes = Prefixes(numbers.ravel(), ends - shared_blocks - 1, ends, 512)
    return replace(trace, prompt_tokens=np.full(count, 512 * (shared_blocks + 1)), prefixes=prefixes)


def played(offered: OfferedLoad) -> Trace:
    assert isinstance(offered.traffic, Replay)
    return offered.traffic.trace


@pytest.mark.parametrize("fleet", ["a100-8b*1:8", "4xa100-8b*1:8,l4-8b*1:4"])
@pytest.mark.parametrize("load", [0.5, 0.95])
def test_a_load_is_the_mean_rate_and_the_bursts_stay(fleet: str, load: float) -> None:
    trace = bursty()
    offered = offered_load(TraceSpec("t", trace, load), parse_fleet(fleet))
    stretched = played(offered)
    assert len(stretched) / offered.duration_s == pytest.approx(load * sum(offered.capacities_per_s))
    assert stretched.duration_s == offered.duration_s
    assert stretched.at_s / stretched.duration_s == pytest.approx(trace.at_s / trace.duration_s)


def test_without_a_load_the_trace_is_as_it_was_recorded() -> None:
    offered = offered_load(TraceSpec("t", bursty()), parse_fleet("a100-8b*1:8"))
    assert (played(offered).at_s == bursty().at_s).all()


def test_the_first_seconds_are_those_after_stretching() -> None:
    spec, fleet = TraceSpec("t", bursty(), 0.5), parse_fleet("a100-8b*1:8")
    whole, part = (offered_load(replace(spec, first_s=first_s), fleet) for first_s in (None, 3.0))
    assert part.duration_s == 3.0
    assert played(part).at_s.tolist() == [at_s for at_s in played(whole).at_s.tolist() if at_s < 3.0]
    longer = offered_load(replace(spec, first_s=1e6), fleet)
    assert longer.duration_s == whole.duration_s


def test_machines_that_come_and_go_count_for_as_long_as_they_are_there() -> None:
    fleet = parse_fleet("a100-8b*1:8,a100-8b*1:8@30-,a100-8b*1:8@-20")
    offered = offered_load(TraceSpec("t", bursty(4000), 0.8), fleet)
    always, joining, leaving = offered.capacities_per_s
    lasts_s = offered.duration_s
    assert joining == pytest.approx(always * (lasts_s - 30) / lasts_s)
    assert leaving == pytest.approx(always * 20 / lasts_s)
    assert 4000 / lasts_s == pytest.approx(0.8 * sum(offered.capacities_per_s))


def test_a_fleet_that_is_not_there_in_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="no server is there in the 10 s"):
        offered_load(TraceSpec("t", bursty(), 0.8, 10.0), parse_fleet("a100-8b*1:8@1000-"))


@pytest.mark.parametrize(
    ("kv_cache_tokens", "longest", "expected"),
    [
        (400_000, 3_000, 3_000),
        (400_000, 50_000, 50_000),
        (400_000, 200_000, LONGEST_CONTEXT),
        (16_384, 50_000, 16_384),
    ],
)
def test_the_context_is_what_the_trace_needs_and_the_fleet_can_hold(
    kv_cache_tokens: int, longest: int, expected: int
) -> None:
    spec = TraceSpec("t", bursty(40, prompt_tokens=longest - 20))
    fleet = parse_fleet(f"a100-8b*1:8:{kv_cache_tokens},a100-8b*1:8:400000")
    assert offered_load(spec, fleet).max_model_len == expected
    assert offered_load(spec, fleet, 2048).max_model_len == 2048


def test_a_context_that_no_cache_holds_is_refused() -> None:
    with pytest.raises(ConfigError, match="a context of 20000 tokens is more than a KV cache of 16384 holds"):
        offered_load(TraceSpec("t", bursty()), parse_fleet("a100-8b*1:8:16384"), 20_000)


def test_a_trace_of_months_needs_a_load_or_an_end() -> None:
    months = replace(bursty(), at_s=bursty().at_s * 1e5)
    assert months.duration_s > MAX_DURATION_S
    fleet = parse_fleet("a100-8b*1:8")
    with pytest.raises(ConfigError, match=r"burst\.csv: the trace would last .* add @LOAD or for=SECONDS"):
        offered_load(TraceSpec("burst.csv", months), fleet)
    assert offered_load(TraceSpec("burst.csv", months, 0.5), fleet).duration_s < 600
    assert offered_load(TraceSpec("burst.csv", months, None, 60.0), fleet).duration_s == 60.0


def test_shared_beginnings_are_part_of_what_a_fleet_can_answer() -> None:
    fleet = parse_fleet("a100-8b*1:16:100000")
    shared = with_prefixes(bursty(), shared_blocks=3, kinds=2)
    unshared = replace(shared, prefixes=None)
    with_cache, without = (
        sum(offered_load(TraceSpec("t", trace, 0.5), fleet).capacities_per_s) for trace in (shared, unshared)
    )
    assert with_cache > 2 * without


def test_a_sample_of_a_short_trace_repeats_it_without_sharing_more() -> None:
    trace = with_prefixes(bursty(20), shared_blocks=2, kinds=1)
    sample = TraceSpec("t", trace).sample(50, 8192, np.random.default_rng(0))
    firsts = [each.content[0] for each in sample]
    assert len(sample) == 60
    assert [firsts.count(first) for first in dict.fromkeys(firsts)] == [20, 20, 20]


def test_the_capacity_of_a_trace_is_what_its_server_can_keep_up_with() -> None:
    """At 0.9 of it the queue ends, at 1.3 it grows: the last of many requests wait for long."""
    fleet = parse_fleet("a100-8b*1:16:100000")
    generator = np.random.default_rng(5)
    count = 3000
    trace = Trace(
        np.sort(generator.uniform(0, 1000, count)),
        generator.integers(50, 2000, count),
        generator.integers(5, 100, count),
    )
    trace = replace(trace, at_s=trace.at_s - trace.at_s[0])
    p90_s = [run_of("least-in-flight", TraceSpec("t", trace, load), fleet).ttft_s(90) for load in (0.8, 1.3)]
    assert p90_s[0] is not None
    assert p90_s[1] is not None
    assert p90_s[0] < 5 < 10 * p90_s[0] < p90_s[1]


def run_of(policy: str, spec: TraceSpec, fleet):  # type: ignore[no-untyped-def]
    return evaluate(offered_scenario(spec, fleet), policy, 1)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_answers_a_trace_with_shared_beginnings_that_are_cut(policy: str) -> None:
    trace = with_prefixes(bursty(60), shared_blocks=40, kinds=3)
    run = run_of(policy, TraceSpec("t", trace, 0.5), parse_fleet("2xa100-8b*1:16:16384"))
    assert run.requests == 60
    assert run.failed == 0
    assert run.refused < 60


def test_contexts_of_131072_tokens_are_evaluated() -> None:
    """Two prompts of 200,000 tokens among short ones."""
    trace = with_prefixes(bursty(40), shared_blocks=391, kinds=1)
    assert trace.prefixes is not None
    is_long = np.arange(40) % 20 == 0
    ends = np.where(is_long, trace.prefixes.ends, trace.prefixes.begins + 2)
    trace = replace(
        trace,
        prompt_tokens=np.where(is_long, 200_000, 1024),
        prefixes=replace(trace.prefixes, ends=ends),
    )
    spec, fleet = TraceSpec("t", trace, 0.5), parse_fleet("2xa100-8b*1:8:400000")
    assert offered_load(spec, fleet).max_model_len == LONGEST_CONTEXT
    run = run_of("layered", spec, fleet)
    assert run.requests == 40
    assert run.failed == 0
