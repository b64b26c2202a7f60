from collections import defaultdict
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.build import a_backend, a_request, an_endpoint, fleet_rules

from extproc.fleet.backend import Backend
from extproc.fleet.fleet_averages import FleetAverages
from extproc.fleet.prefix_cache import DOUBTED_TOKENS
from extproc.fleet.sent_prefixes import SWEPT_BLOCKS, SentPrefixes
from extproc.fleet.signals import Signals
from extproc.request.prefix import BLOCK_ENDS

SYSTEM = (1, 2, 3)
ANNA = (*SYSTEM, 10, 11)
BEN = (*SYSTEM, 20)


@pytest.fixture
def prefixes() -> SentPrefixes:
    return SentPrefixes()


def scrape(backend: Backend, **counters: float) -> None:
    backend.cache.scraped(Signals(running=0, waiting=0, **counters))


def blocks(held: Mapping[Backend, int]) -> dict[str, int]:
    return {backend.name: count for backend, count in held.items()}


def test_a_backend_is_expected_to_hold_the_longest_beginning_that_it_was_sent(
    prefixes: SentPrefixes, one: Backend, two: Backend
) -> None:
    prefixes.sent(one, ANNA, 100, 0)
    prefixes.sent(two, BEN, 100, 0)
    assert prefixes.blocks_at((*ANNA, 12)) == {one: 5, two: 3}
    assert prefixes.blocks_at((*BEN, 21)) == {one: 3, two: 4}
    assert prefixes.blocks_at(SYSTEM[:2]) == {one: 2, two: 2}


def test_no_backend_holds_a_prompt_that_none_was_sent(prefixes: SentPrefixes, one: Backend) -> None:
    prefixes.sent(one, ANNA, 100, 0)
    assert prefixes.blocks_at((99, 2, 3)) == {}
    assert prefixes.blocks_at(()) == {}


def test_a_cache_forgets_what_it_has_no_room_for_any_more(prefixes: SentPrefixes, one: Backend) -> None:
    scrape(one, kv_cache_tokens=1000.0)
    prefixes.sent(one, ANNA, 400, 0)
    prefixes.sent(one, (7,), 1000, 0)
    assert prefixes.blocks_at(ANNA) == {one: 5}
    prefixes.sent(one, (8,), 1, 0)
    assert prefixes.blocks_at(ANNA) == {}
    assert prefixes.blocks_at((7,)) == {one: 1}


def test_a_conversation_that_goes_on_is_kept_and_takes_room_only_for_new_tokens(
    prefixes: SentPrefixes, one: Backend
) -> None:
    scrape(one, kv_cache_tokens=1000.0)
    for _ in range(20):
        prefixes.sent(one, ANNA, 900, 850)
        prefixes.sent(one, BEN, 900, 850)
    assert prefixes.blocks_at(ANNA) == {one: 5}


def test_answers_take_room_too(prefixes: SentPrefixes, one: Backend) -> None:
    scrape(one, kv_cache_tokens=1000.0, generation_tokens_total=50_000.0)
    prefixes.sent(one, ANNA, 400, 0)
    scrape(one, kv_cache_tokens=1000.0, generation_tokens_total=50_900.0)
    assert prefixes.blocks_at(ANNA) == {one: 5}
    scrape(one, kv_cache_tokens=1000.0, generation_tokens_total=51_100.0)
    assert prefixes.blocks_at(ANNA) == {}


def test_a_restart_empties_the_cache_of_one_backend(
    prefixes: SentPrefixes, one: Backend, two: Backend
) -> None:
    scrape(one, prompt_tokens_total=5000.0, generation_tokens_total=800.0)
    prefixes.sent(one, ANNA, 100, 0)
    prefixes.sent(two, ANNA, 100, 0)
    scrape(one, prompt_tokens_total=10.0, generation_tokens_total=2.0)
    assert prefixes.blocks_at(ANNA) == {two: 5}
    prefixes.sent(one, ANNA, 100, 0)
    assert prefixes.blocks_at(ANNA) == {one: 5, two: 5}


def test_a_server_that_never_reports_a_hit_has_no_cache(prefixes: SentPrefixes, one: Backend) -> None:
    scrape(one, prefix_hits_total=0.0)
    prefixes.sent(one, ANNA, 500, 0)
    prefixes.sent(one, ANNA, DOUBTED_TOKENS, DOUBTED_TOKENS)
    assert prefixes.blocks_at(ANNA) == {one: 5}
    prefixes.sent(one, ANNA, 500, 400)
    assert prefixes.blocks_at(ANNA) == {}
    scrape(one, prefix_hits_total=64.0)
    assert prefixes.blocks_at(ANNA) == {one: 5}


def test_a_server_that_does_not_count_hits_is_believed(prefixes: SentPrefixes, one: Backend) -> None:
    scrape(one)
    prefixes.sent(one, ANNA, 10 * DOUBTED_TOKENS, 10 * DOUBTED_TOKENS)
    assert prefixes.blocks_at(ANNA) == {one: 5}


def test_a_backend_that_leaves_takes_its_notes_along(
    prefixes: SentPrefixes, one: Backend, two: Backend
) -> None:
    prefixes.sent(one, ANNA, 100, 0)
    prefixes.sent(two, BEN, 100, 0)
    prefixes.drop({one})
    assert prefixes.blocks_at(ANNA) == {two: 3}
    assert not prefixes.sweep()
    assert len(prefixes) == len(BEN)
    prefixes.drop({two})
    assert prefixes.blocks_at(ANNA) == {}
    assert not prefixes.sweep()
    assert len(prefixes) == 0


def test_departed_backends_are_swept_out_in_slices_however_many_leave_meanwhile() -> None:
    backends, prefixes = [a_backend(number=number) for number in range(20)], SentPrefixes()
    for block in range(5 * SWEPT_BLOCKS):
        prefixes.sent(backends[block % 20], (block,), 1, 0)
    slices = 0
    for backend in backends:
        prefixes.drop({backend})
        before = len(prefixes)
        prefixes.sweep()
        assert before - len(prefixes) <= SWEPT_BLOCKS
    while prefixes.sweep():
        slices += 1
        assert slices < 20
    assert len(prefixes) == 0


def test_a_prompt_that_is_sent_while_departed_backends_are_swept_out_is_kept(
    one: Backend, two: Backend
) -> None:
    prefixes = SentPrefixes()
    for block in range(2 * SWEPT_BLOCKS):
        prefixes.sent(one, (block,), 1, 0)
    prefixes.drop({one})
    assert prefixes.sweep()
    for block in range(2 * SWEPT_BLOCKS):
        prefixes.sent(two, (block,), 1, 0)
    while prefixes.sweep():
        pass
    assert len(prefixes) == 2 * SWEPT_BLOCKS
    assert prefixes.blocks_at((0,)) == {two: 1}


class CountedBackend(Backend):
    """A backend that counts how often it is looked for."""

    __slots__ = ()
    looked_for = 0

    def __hash__(self) -> int:
        CountedBackend.looked_for += 1
        return id(self)


def test_a_fleet_that_leaves_at_once_costs_no_more_than_one_walk_over_its_notes() -> None:
    rules = fleet_rules()
    backends = [CountedBackend(an_endpoint(number), rules, FleetAverages()) for number in range(200)]
    prefixes = SentPrefixes()
    for number, backend in enumerate(backends):
        prefixes.sent(backend, range(10 * number, 10 * number + 10), 100, 0)
    gone, notes = set(backends), len(prefixes)
    CountedBackend.looked_for = 0
    prefixes.drop(gone)
    while prefixes.sweep():
        pass
    assert len(prefixes) == 0
    assert CountedBackend.looked_for <= 5 * notes


def test_a_backend_of_the_same_name_knows_nothing_of_the_prompts_of_the_one_before(
    prefixes: SentPrefixes, one: Backend
) -> None:
    prefixes.sent(one, ANNA, 100, 0)
    prefixes.drop({one})
    newcomer = a_backend(number=1)
    assert prefixes.blocks_at(ANNA) == {}
    prefixes.sent(newcomer, SYSTEM, 100, 0)
    assert prefixes.blocks_at(ANNA) == {newcomer: 3}


def test_memory_is_bounded_and_the_blocks_sent_the_longest_ago_are_dropped_first(
    one: Backend, two: Backend
) -> None:
    prefixes = SentPrefixes(max_notes=10)
    for conversation in range(100, 200):
        prefixes.sent(one, (*SYSTEM, conversation), 1, 0)
        prefixes.sent(two, SYSTEM, 1, 0)
        assert len(prefixes) <= 10
    assert prefixes.blocks_at((*SYSTEM, 199)) == {one: 4, two: 3}
    assert prefixes.blocks_at((*SYSTEM, 100)) == {one: 3, two: 3}


def test_the_blocks_that_are_held_are_a_part_of_the_prompts_tokens(
    prefixes: SentPrefixes, one: Backend
) -> None:
    prefixes.sent(one, SYSTEM, 100, 0)
    request = a_request(input_tokens=500, prefix=ANNA, prompt_bytes=4000)
    assert prefixes.cached_tokens(request) == {one: BLOCK_ENDS[2] * 500 / 4000}
    assert prefixes.cached_tokens(a_request()) == {}


_texts = st.lists(st.integers(0, 2), min_size=1, max_size=5)


@given(st.lists(st.tuples(st.integers(0, 3), _texts), max_size=30), _texts)
def test_it_finds_what_comparing_all_texts_would(sent: list[tuple[int, list[int]]], asked: list[int]) -> None:
    def chain(text: list[int]) -> tuple[int, ...]:
        return tuple(hash(tuple(text[: end + 1])) for end in range(len(text)))

    backends = [a_backend(number=number) for number in range(4)]
    prefixes, known = SentPrefixes(), defaultdict[str, int](int)
    for number, text in sent:
        prefixes.sent(backends[number], chain(text), 10, 0)
        common = next((n for n, (a, b) in enumerate(zip(text, asked, strict=False)) if a != b), None)
        shared = min(len(text), len(asked)) if common is None else common
        name = backends[number].name
        known[name] = max(known[name], shared)
    assert blocks(prefixes.blocks_at(chain(asked))) == {name: count for name, count in known.items() if count}
