import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from support.evaluated_scenarios import layered_rules

from extproc.errors import ConfigError, ModelFileError
from extproc.lab.evaluation.fleet_text import parse_fleet
from extproc.lab.evaluation.simulated_server import Gauges, Server
from extproc.lab.rivals.aibrix import LeastLatency
from extproc.lab.rivals.choice import POLICIES, parse_policies
from extproc.lab.rivals.counting import LeastInFlight, LeastRequest, Random, RoundRobin
from extproc.lab.rivals.endpoint_picker import (
    ActiveRequest,
    DefaultProfile,
    PrefixIndex,
    TokenLoad,
    active_request_scores,
    kv_cache_scores,
    queue_scores,
)
from extproc.lab.rivals.layered import Layered
from extproc.lab.rivals.oracle import Oracle, SheddingOracle
from extproc.lab.rivals.peak_ewma import DECAY_S, PeakEwma
from extproc.lab.rivals.policy import Candidate, Ended, Policy
from extproc.lab.rivals.prefill_load import MAX_PENALTY_S, PREFILL_TOKENS_PER_S, LMetric, TokenLoadAffinity
from extproc.lab.traffic.arrivals import Arrival

REQUEST = Arrival(0.0, 100, 10)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def gauges(waiting: int = 0, kv: float = 0.0, ttft_s: float = 0.0, decode_s: float = 0.0) -> Gauges:
    """Those of a server that has answered ten requests of ten tokens, in these times each."""
    return Gauges(0, waiting, kv, 1000, 100, 10 * ttft_s, 10, 10 * decode_s, 10, 0, 16_384)


def scraped(*all_gauges: Gauges) -> list[Candidate]:
    return [Candidate(number, gauges=each) for number, each in enumerate(all_gauges)]


def in_flight(*counts: int) -> list[Candidate]:
    return [Candidate(number, count) for number, count in enumerate(counts)]


def choices(policy: Policy, candidates: list[Candidate], count: int = 300) -> Counter[int | None]:
    return Counter(policy.choose(number, REQUEST, candidates, 0.0) for number in range(count))


def test_round_robin_takes_turns() -> None:
    policy = RoundRobin(rng())
    chosen = [policy.choose(number, REQUEST, in_flight(9, 0, 0), 0.0) for number in range(7)]
    assert all((later - earlier) % 3 == 1 for earlier, later in pairwise(chosen))


def test_random_chooses_each_backend_equally_often_whatever_its_load() -> None:
    chosen = choices(Random(rng()), in_flight(9, 0, 0), 3000)
    assert all(900 < chosen[backend] < 1100 for backend in range(3))


def test_least_request_compares_two_that_may_be_the_same() -> None:
    chosen = choices(LeastRequest(rng()), in_flight(5, 1, 9), 9000)
    # Of nine equal pairs one has only the busiest, three have nobody better than the middle one.
    assert chosen[2] == pytest.approx(1000, rel=0.15)
    assert chosen[0] == pytest.approx(3000, rel=0.1)
    assert chosen[1] == pytest.approx(5000, rel=0.1)


@pytest.mark.parametrize("rule", [LeastInFlight, ActiveRequest])
def test_the_least_busy_is_chosen_and_ties_are_broken_at_random(rule: type[LeastInFlight]) -> None:
    chosen = choices(rule(rng()), in_flight(2, 1, 1, 7))
    assert set(chosen) == {1, 2}
    assert set(choices(rule(rng()), in_flight(0, 0))) == {0, 1}


def test_active_requests_are_scored_against_the_most() -> None:
    assert active_request_scores(in_flight(4, 1, 0)) == [0.0, 0.75, 1.0]
    assert active_request_scores(in_flight(0, 0)) == [1.0, 1.0]


def test_queues_are_scored_between_the_shortest_and_the_longest() -> None:
    assert queue_scores(scraped(gauges(2), gauges(12), gauges(7))) == [1.0, 0.0, 0.5]
    assert queue_scores(scraped(gauges(3), gauges(3))) == [1.0, 1.0]
    assert kv_cache_scores(scraped(gauges(kv=0.25))) == [0.75]


def test_queue_and_kv_cache_weigh_the_same() -> None:
    """A queue a fifth of the way to the longest is outweighed by more than a fifth of the KV cache."""
    candidates = scraped(gauges(0, 0.5), gauges(2, 0.25), gauges(10, 0.0))
    assert set(choices(DefaultProfile(rng()), candidates)) == {1}
    assert set(choices(DefaultProfile(rng()), scraped(gauges(0, 0.5), gauges(2, 0.4), gauges(10)))) == {0}


def test_queue_and_kv_cache_do_not_see_what_was_just_sent() -> None:
    candidates = scraped(gauges(1), gauges(0))
    candidates[1].in_flight = 50
    assert set(choices(DefaultProfile(rng()), candidates)) == {1}


def test_a_prefix_is_looked_for_where_it_was_sent() -> None:
    policy, request = DefaultProfile(rng()), Arrival(0.0, 64, 10, (1, 2, 3, 4, 5))
    candidates = scraped(gauges(), gauges(), gauges(), gauges())
    first = policy.choose(0, request, candidates, 0.0)
    assert {policy.choose(number, request, candidates, 0.0) for number in range(20)} == {first}


def test_the_prefix_weighs_by_its_share_of_the_prompt() -> None:
    index = PrefixIndex()
    index.add(1, Arrival(0.0, 64, 10, (1, 2, 3, 4, 5)))
    scores = index.scores(scraped(gauges(), gauges()), Arrival(0.0, 100, 10, (1, 2, 9, 4)))
    assert scores == [0.0, pytest.approx(2 / 6)]


def test_token_load_counts_prompts_not_requests() -> None:
    candidates = [Candidate(0, 1, 5000), Candidate(1, 9, 900)]
    assert set(choices(TokenLoad(rng()), candidates)) == {1}


def test_an_index_of_larger_blocks_knows_them_by_all_that_is_before_their_end() -> None:
    index, sent = PrefixIndex(block_tokens=64, max_blocks=2), tuple(range(1, 13))
    index.add(1, Arrival(0.0, 200, 10, sent))
    candidates = in_flight(0, 0)
    assert index.cached_tokens(candidates, Arrival(0.0, 200, 10, sent)) == [0, 128]  # no more than two
    assert index.cached_tokens(candidates, Arrival(0.0, 200, 10, (*sent[:7], 99))) == [0, 64]
    assert index.scores(candidates, Arrival(0.0, 63, 10, sent)) == [0.0, 0.0]


def test_an_index_keeps_the_newest_blocks() -> None:
    index, candidates = PrefixIndex(), in_flight(0)
    first, second = Arrival(0.0, 32, 10, (1, 2)), Arrival(0.0, 32, 10, (3, 4))
    for request in (first, second):
        index.add(0, request, capacity=3)
    assert index.cached_tokens(candidates, second) == [32]
    assert index.cached_tokens(candidates, first) == [0]


LONG = Arrival(0.0, 64_000, 10, tuple(range(1, 4001)))
"""A prompt that others may share."""


def ended_early(request_id: int, backend: int) -> Ended:
    return Ended(request_id, REQUEST, backend, None, 1.0, is_failed=True)


def test_token_load_counts_prompts_until_their_first_token() -> None:
    policy, candidates = TokenLoadAffinity(rng()), in_flight(0, 0)
    first = policy.choose(0, Arrival(0.0, 5000, 10), candidates, 0.0)
    other = 1 - first
    assert policy.choose(1, Arrival(0.0, 3000, 10), candidates, 0.0) == other
    assert policy.choose(2, Arrival(0.0, 100, 10), candidates, 0.0) == other
    policy.first_token(0, first, 0.5, 0.5)
    assert policy.choose(3, Arrival(0.0, 100, 10), candidates, 0.5) == first


def test_token_load_forgets_what_failed_before_its_first_token() -> None:
    policy, candidates = TokenLoadAffinity(rng()), in_flight(0, 0)
    first = policy.choose(0, Arrival(0.0, 5000, 10), candidates, 0.0)
    policy.ended(ended_early(0, first), 1.0)
    policy.ended(ended_early(0, first), 1.0)
    assert policy.queued(candidates) == [0, 0]


def test_a_prompt_stays_where_most_of_it_is_cached_until_the_wait_there_is_too_long() -> None:
    policy, candidates = TokenLoadAffinity(rng()), in_flight(0, 0)
    first = policy.choose(0, LONG, candidates, 0.0)
    policy.first_token(0, first, 1.0, 1.0)
    most_tokens = int(MAX_PENALTY_S * PREFILL_TOKENS_PER_S)
    number = 1
    for tokens in (most_tokens // 2, most_tokens // 2):
        policy._queued[first] += tokens
        assert policy.choose(number, LONG, candidates, 1.0) == first
        number += 1
    policy._queued[first] += 1000
    assert policy.choose(number, LONG, candidates, 1.0) == 1 - first


def test_a_short_common_beginning_is_no_reason_to_stay() -> None:
    policy, candidates = TokenLoadAffinity(rng()), in_flight(0, 0)
    first = policy.choose(0, LONG, candidates, 0.0)
    mostly_other = Arrival(0.0, 64_000, 10, (*LONG.content[:3000], 99_999))
    assert policy.choose(1, mostly_other, candidates, 0.0) == 1 - first


def test_only_what_is_not_cached_counts_as_load() -> None:
    policy, candidates = TokenLoadAffinity(rng()), in_flight(0, 0)
    first = policy.choose(0, LONG, candidates, 0.0)
    policy.first_token(0, first, 1.0, 1.0)
    assert policy.choose(1, LONG, candidates, 1.0) == first
    assert policy.queued(candidates) == [0, 0]


def test_lmetric_takes_the_smallest_product_of_prompt_tokens_and_requests() -> None:
    policy = LMetric(rng())
    policy._queued.update({0: 900, 1: 150, 2: 300})
    # (900 + 100) * 1, (150 + 100) * 5 and (300 + 100) * 2
    assert set(choices_of_one(policy, in_flight(0, 4, 1))) == {2}
    assert policy.scores(in_flight(0, 4, 1), REQUEST) == [-1000.0, -1250.0, -800.0]


def choices_of_one(policy: LMetric, candidates: list[Candidate]) -> Counter[int | None]:
    """The choices for equal requests, each of which fails at once."""
    chosen: Counter[int | None] = Counter()
    for number in range(30):
        backend = policy.choose(number, REQUEST, candidates, 0.0)
        policy.ended(ended_early(number, backend), 0.0)
        chosen[backend] += 1
    return chosen


def test_lmetric_goes_where_the_prompt_is_cached_unless_the_batch_there_is_larger_by_more() -> None:
    policy, candidates = LMetric(rng()), in_flight(0, 0)
    request = Arrival(0.0, 1600, 10, tuple(range(1, 91)))  # 160 of its tokens are its own
    first = policy.choose(0, request, candidates, 0.0)
    policy.first_token(0, first, 1.0, 1.0)
    candidates[first].in_flight = 8
    assert policy.uncached(candidates, request)[first] == 160
    assert policy.choose(1, request, candidates, 1.0) == first  # 160 * 9 against 1600 * 1
    policy.first_token(1, first, 1.0, 1.0)
    candidates[first].in_flight = 10
    assert policy.choose(2, request, candidates, 1.0) == 1 - first


def test_least_latency_takes_the_last_of_the_fastest() -> None:
    slow, fast = gauges(ttft_s=0.5, decode_s=1.0), gauges(ttft_s=0.1, decode_s=1.0)
    assert set(choices(LeastLatency(), scraped(slow, fast, fast))) == {2}


def test_least_latency_sets_decoding_to_the_same_number_of_tokens() -> None:
    long = Gauges(0, 0, 0.0, 1000, 1000, 1.0, 10, 50.0, 10, 0, 16_384)  # 100 tokens in 5 s
    short = gauges(ttft_s=0.1, decode_s=1.0)  # 10 tokens in 1 s
    assert set(choices(LeastLatency(), scraped(long, short))) == {0}


def peak_ewma(*ttfts_s: float) -> PeakEwma:
    """A response of each backend in turn, all at time 0."""
    policy = PeakEwma(len(ttfts_s), rng())
    while any(policy._pending[backend] == 0 for backend in range(len(ttfts_s))):
        policy.choose(0, REQUEST, in_flight(*[0] * len(ttfts_s)), 0.0)
    for backend, ttft_s in enumerate(ttfts_s):
        for _ in range(policy._pending[backend]):
            policy.first_token(0, backend, ttft_s, 0.0)
    return policy


def test_peak_ewma_prefers_the_faster_until_it_has_more_pending() -> None:
    policy = peak_ewma(1.0, 0.25)
    chosen = [policy.choose(number, REQUEST, in_flight(0, 0), 0.0) for number in range(4)]
    assert chosen[:3] == [1, 1, 1]  # 0.25 * (pending + 1) reaches 1.0 with three pending


def test_peak_ewma_jumps_to_a_peak_and_forgets_it_slowly() -> None:
    policy = peak_ewma(1.0, 0.5)
    policy._pending[0] += 1
    policy.first_token(0, 0, 3.0, 0.0)
    assert policy._cost(0, 0.0) == 3.0
    assert policy._cost(0, DECAY_S) == pytest.approx(3.0 / math.e)


def test_the_oracle_takes_the_earliest_true_first_token() -> None:
    servers = [Server(spec) for spec in parse_fleet("a100-8b*1:1,a100-8b*0.5:1")]
    assert Oracle(servers).choose(0, REQUEST, in_flight(0, 0), 0.0) == 0
    servers[0].submit("long", 100, 1000, 0.0)
    assert Oracle(servers).choose(1, REQUEST, in_flight(0, 0), 0.0) == 1
    servers[1].submit("longer", 100, 1000, 0.0)
    assert Oracle(servers).choose(2, REQUEST, in_flight(0, 9), 0.0) == 0


def test_the_shedding_oracle_refuses_requests_that_would_be_late_everywhere() -> None:
    servers = [Server(spec) for spec in parse_fleet("a100-8b*1:1,a100-8b*0.5:1")]
    servers[0].submit("long", 100, 1000, 0.0)
    assert SheddingOracle(servers, 2.0).choose(0, REQUEST, in_flight(0, 0), 0.0) == 1
    servers[1].submit("longer", 100, 1000, 0.0)
    assert SheddingOracle(servers, 2.0).choose(1, REQUEST, in_flight(0, 0), 0.0) is None
    assert SheddingOracle(servers, 60.0).choose(2, REQUEST, in_flight(0, 0), 0.0) == 0


def test_a_long_prompt_is_not_late_for_being_long() -> None:
    servers = [Server(spec) for spec in parse_fleet("a100-8b*1:8")]
    oracle = SheddingOracle(servers, delay_limit_s=0.0)
    assert oracle.choose(0, Arrival(0.0, 100_000, 10), in_flight(0), 0.0) == 0


def test_the_oracle_knows_what_a_request_takes_outside_of_the_engine() -> None:
    (spec,) = parse_fleet("a100-8b*1:8")
    far = replace(spec, profile=replace(spec.profile, request_s=1.0))
    slow = replace(spec, profile=replace(spec.profile, speed=0.5))
    assert Oracle([Server(far), Server(slow)]).choose(0, REQUEST, in_flight(0, 0), 0.0) == 1


def test_the_oracle_changes_nothing_by_looking() -> None:
    server = Server(parse_fleet("a100-8b*1:1")[0])
    server.submit("first", 100, 10, 0.0)
    before = server.gauges(0.1), server.run_ends_s, server.busy_s
    Oracle([server]).choose(0, REQUEST, in_flight(0), 0.0)
    assert (server.gauges(0.1), server.run_ends_s, server.busy_s) == before


def layered(max_active: int = 100) -> Layered:
    return Layered(["sim-1", "sim-2"], layered_rules(max_active=max_active), rng())


def test_the_production_policy_reserves_and_releases() -> None:
    policy = layered(max_active=1)
    first, second = (policy.choose(number, REQUEST, [], 0.0) for number in range(2))
    assert {first, second} == {0, 1}
    assert policy.choose(2, REQUEST, [], 0.0) is None
    assert first is not None
    policy.ended(Ended(0, REQUEST, first, 0.1, 0.2), 0.2)
    assert policy.choose(3, REQUEST, [], 0.3) == first


def test_layered_routers_share_no_state() -> None:
    one, other = layered(max_active=1), layered(max_active=1)
    assert {one.choose(number, REQUEST, [], 0.0) for number in range(2)} == {0, 1}
    assert {other.choose(number, REQUEST, [], 0.0) for number in range(2)} == {0, 1}


def test_the_production_policy_counts_foreign_load_from_the_gauges() -> None:
    policy = layered()
    policy.scraped(0, Gauges(8, 30, 0.5, 0, 0, 0.0, 0, 0.0, 0, 0, 16_384), 1.0)
    assert {policy.choose(number, REQUEST, [], 1.1) for number in range(10)} == {1}


def test_looking_at_the_estimates_changes_nothing() -> None:
    policy = layered()
    policy.scraped(0, Gauges(8, 30, 0.5, 0, 0, 0.0, 0, 0.0, 0, 0, 16_384), 1.0)
    estimates_s = policy.estimates_s(REQUEST, 1.1)
    assert set(estimates_s) == {0, 1}
    assert estimates_s[1] < estimates_s[0]
    assert policy.estimates_s(REQUEST, 1.1) == estimates_s
    assert not policy.core.router.counts.by_reason


def test_an_invalid_model_file_is_an_error() -> None:
    with pytest.raises(ModelFileError):
        Layered(["sim-1"], layered_rules(model_file=b"{}"), rng())


def test_policies_are_named_once_or_all() -> None:
    assert parse_policies("all") == tuple(POLICIES)
    assert parse_policies("oracle, random,oracle") == ("oracle", "random")
    for text in ("", "best", "random,best"):
        with pytest.raises(ConfigError, match="layered"):
            parse_policies(text)
