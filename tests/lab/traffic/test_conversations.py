from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from extproc.lab.traffic.arrivals import Arrival, Bursts, Steady
from extproc.lab.traffic.conversations import Conversations
from extproc.lab.traffic.workload import Fixed, Lognormal, Workload

TRAFFIC = Conversations(
    curve=Steady(),
    rate=20.0,
    duration_s=600.0,
    turns=4.0,
    pause_s=10.0,
    shared_tokens=160,
    kinds=3,
    lengths=Workload(Lognormal(100, 0.8), Fixed(40)),
    max_model_len=8192,
)
SHARED_BLOCKS = 10


def arrivals(traffic: Conversations, seed: int = 0) -> list[Arrival]:
    return list(traffic.arrivals(np.random.default_rng(seed)))


@pytest.fixture(scope="module")
def requests() -> list[Arrival]:
    return arrivals(TRAFFIC)


def by_conversation(requests: list[Arrival]) -> list[list[Arrival]]:
    turns = defaultdict(list)
    for each in requests:
        turns[each.content[SHARED_BLOCKS] >> 32].append(each)
    return list(turns.values())


def test_turns_come_in_the_order_of_time_at_about_the_rate(requests: list[Arrival]) -> None:
    at_s = [each.at_s for each in requests]
    assert at_s == sorted(at_s)
    assert at_s[-1] < 600
    settled = [each for each in at_s if each > 100]
    assert len(settled) == pytest.approx(20 * 500, rel=0.07)


def test_a_conversation_has_so_many_turns_on_average(requests: list[Arrival]) -> None:
    begun_early = [turns for turns in by_conversation(requests) if turns[0].at_s < 400]
    assert np.mean([len(turns) for turns in begun_early]) == pytest.approx(4, rel=0.07)


def test_each_prompt_begins_with_all_that_was_said_before(requests: list[Arrival]) -> None:
    for turns in by_conversation(requests):
        for earlier, later in pairwise(turns):
            assert later.prompt_tokens > earlier.prompt_tokens + earlier.output_tokens
            assert later.content[: len(earlier.content)] == earlier.content
            assert len(earlier.content) == (earlier.prompt_tokens + earlier.output_tokens) // 16


def test_the_turns_of_a_conversation_are_one_session_and_no_other_is(requests: list[Arrival]) -> None:
    sessions = [{turn.session for turn in turns} for turns in by_conversation(requests)]
    assert all(len(of_one) == 1 for of_one in sessions)
    assert len(set.union(*sessions) - {0}) == len(sessions)


def test_conversations_share_their_kinds_text_and_nothing_else(requests: list[Arrival]) -> None:
    conversations = by_conversation(requests)
    first = [turns[0].content for turns in conversations]
    assert len({content[:SHARED_BLOCKS] for content in first}) == 3
    own = [block for turns in conversations for block in turns[-1].content[SHARED_BLOCKS:]]
    assert len(own) == len(set(own))


def test_a_conversation_ends_where_the_context_does() -> None:
    short = replace(TRAFFIC, max_model_len=700, turns=50.0)
    requests = arrivals(short)
    assert max(each.prompt_tokens + each.output_tokens for each in requests) <= 700


def test_conversations_begin_with_the_curve() -> None:
    bursty = replace(TRAFFIC, curve=Bursts(3.0, 30.0, 6.0), turns=1.0)
    in_bursts = sum(each.at_s % 30 >= 24 for each in arrivals(bursty))
    assert in_bursts / (600 / 30 * 6) == pytest.approx(60, rel=0.1)


def test_the_same_seed_gives_the_same_conversations() -> None:
    short = replace(TRAFFIC, duration_s=60.0)
    assert arrivals(short, seed=3) == arrivals(short, seed=3)
    assert arrivals(short, seed=3) != arrivals(short, seed=4)
