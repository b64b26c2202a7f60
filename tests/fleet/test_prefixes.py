from collections import defaultdict

import pytest
from extproc.fleet.prefixes import DOUBTED_TOKENS, SentPrefixes
from hypothesis import given
from hypothesis import strategies as st

from extproc.fleet.signals import Signals

SYSTEM = (1, 2, 3)
ANNA = (*SYSTEM, 10, 11)
BEN = (*SYSTEM, 20)


@pytest.fixture
def prefixes() -> SentPrefixes:
    return SentPrefixes()


def signals(**told: float) -> Signals:
    return Signals(running=0, waiting=0, **told)


def test_each_backend_is_known_by_the_longest_beginning_that_it_was_sent(prefixes: SentPrefixes) -> None:
    prefixes.sent(0, ANNA, 100, 0)
    prefixes.sent(1, BEN, 100, 0)
    assert prefixes.blocks_at((*ANNA, 12)) == {0: 5, 1: 3}
    assert prefixes.blocks_at((*BEN, 21)) == {0: 3, 1: 4}
    assert prefixes.blocks_at(SYSTEM[:2]) == {0: 2, 1: 2}


def test_of_a_prompt_that_nobody_was_sent_nothing_is_expected(prefixes: SentPrefixes) -> None:
    prefixes.sent(0, ANNA, 100, 0)
    assert prefixes.blocks_at((99, 2, 3)) == {}
    assert prefixes.blocks_at(()) == {}


def test_a_cache_forgets_what_it_cannot_hold_any_more(prefixes: SentPrefixes) -> None:
    prefixes.scraped(0, signals(kv_cache_tokens=1000.0))
    prefixes.sent(0, ANNA, 400, 0)
    prefixes.sent(0, (7,), 1000, 0)
    assert prefixes.blocks_at(ANNA) == {0: 5}
    prefixes.sent(0, (8,), 1, 0)
    assert prefixes.blocks_at(ANNA) == {}
    assert prefixes.blocks_at((7,)) == {0: 1}


def test_what_is_used_again_is_kept_and_takes_only_what_is_new(prefixes: SentPrefixes) -> None:
    prefixes.scraped(0, signals(kv_cache_tokens=1000.0))
    for _ in range(20):
        prefixes.sent(0, ANNA, 900, 850)
        prefixes.sent(0, BEN, 900, 850)
    assert prefixes.blocks_at(ANNA) == {0: 5}


def test_answers_take_room_too(prefixes: SentPrefixes) -> None:
    prefixes.scraped(0, signals(kv_cache_tokens=1000.0, generation_tokens_total=50_000.0))
    prefixes.sent(0, ANNA, 400, 0)
    prefixes.scraped(0, signals(kv_cache_tokens=1000.0, generation_tokens_total=50_900.0))
    assert prefixes.blocks_at(ANNA) == {0: 5}
    prefixes.scraped(0, signals(kv_cache_tokens=1000.0, generation_tokens_total=51_100.0))
    assert prefixes.blocks_at(ANNA) == {}


def test_a_restart_empties_the_cache(prefixes: SentPrefixes) -> None:
    prefixes.scraped(0, signals(prompt_tokens_total=5000.0, generation_tokens_total=800.0))
    prefixes.sent(0, ANNA, 100, 0)
    prefixes.sent(1, ANNA, 100, 0)
    prefixes.scraped(0, signals(prompt_tokens_total=10.0, generation_tokens_total=2.0))
    assert prefixes.blocks_at(ANNA) == {1: 5}
    prefixes.sent(0, ANNA, 100, 0)
    assert prefixes.blocks_at(ANNA) == {0: 5, 1: 5}


def test_a_backend_in_the_place_of_another_knows_nothing_of_its_prompts(prefixes: SentPrefixes) -> None:
    prefixes.sent(0, ANNA, 100, 0)
    prefixes.forget(0)
    assert prefixes.blocks_at(ANNA) == {}
    prefixes.sent(0, SYSTEM, 100, 0)
    assert prefixes.blocks_at(ANNA) == {0: 3}


def test_a_server_that_never_reports_a_hit_has_no_cache(prefixes: SentPrefixes) -> None:
    prefixes.scraped(0, signals(prefix_hits_total=0.0))
    prefixes.sent(0, ANNA, 500, 0)
    prefixes.sent(0, ANNA, DOUBTED_TOKENS, DOUBTED_TOKENS)
    assert prefixes.blocks_at(ANNA) == {0: 5}
    prefixes.sent(0, ANNA, 500, 400)
    assert prefixes.blocks_at(ANNA) == {}
    prefixes.scraped(0, signals(prefix_hits_total=64.0))
    assert prefixes.blocks_at(ANNA) == {0: 5}


def test_a_server_that_does_not_count_hits_is_believed(prefixes: SentPrefixes) -> None:
    prefixes.scraped(0, signals())
    prefixes.sent(0, ANNA, 10 * DOUBTED_TOKENS, 10 * DOUBTED_TOKENS)
    assert prefixes.blocks_at(ANNA) == {0: 5}


def test_memory_is_bounded_and_what_was_sent_the_longest_ago_goes_first() -> None:
    prefixes = SentPrefixes(max_notes=10)
    for conversation in range(100, 200):
        prefixes.sent(0, (*SYSTEM, conversation), 1, 0)
        prefixes.sent(1, SYSTEM, 1, 0)
        assert len(prefixes) <= 10
    assert prefixes.blocks_at((*SYSTEM, 199)) == {0: 4, 1: 3}
    assert prefixes.blocks_at((*SYSTEM, 100)) == {0: 3, 1: 3}


_texts = st.lists(st.integers(0, 2), min_size=1, max_size=5)


@given(st.lists(st.tuples(st.integers(0, 3), _texts), max_size=30), _texts)
def test_it_finds_what_comparing_all_texts_would(sent: list[tuple[int, list[int]]], asked: list[int]) -> None:
    def chain(text: list[int]) -> tuple[int, ...]:
        return tuple(hash(tuple(text[: end + 1])) for end in range(len(text)))

    prefixes, known = SentPrefixes(), defaultdict[int, int](int)
    for slot, text in sent:
        prefixes.sent(slot, chain(text), 10, 0)
        common = next((n for n, (a, b) in enumerate(zip(text, asked, strict=False)) if a != b), None)
        shared = min(len(text), len(asked)) if common is None else common
        known[slot] = max(known[slot], shared)
    assert prefixes.blocks_at(chain(asked)) == {slot: count for slot, count in known.items() if count}
