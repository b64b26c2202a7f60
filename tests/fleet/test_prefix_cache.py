import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.fleet.prefix_cache import DOUBTED_TOKENS, LEAST_FOUND, PrefixCache
from extproc.fleet.signals import Signals

SIZE = 1000.0


@pytest.fixture
def cache() -> PrefixCache:
    cache = PrefixCache()
    scrape(cache, kv_cache_tokens=SIZE)
    return cache


def scrape(cache: PrefixCache, **counters: float) -> None:
    cache.scraped(Signals(running=0, waiting=0, **counters))


def send(cache: PrefixCache, tokens: float, cached_tokens: float = 0.0) -> float:
    """Return when the prompt was sent, by the cache's clock."""
    cache.sent(tokens, cached_tokens)
    return cache.clock


def holds(cache: PrefixCache, sent_at: float) -> bool:
    return sent_at >= cache.oldest


def test_it_forgets_what_it_has_no_room_for_any_more(cache: PrefixCache) -> None:
    first, second = send(cache, 400), send(cache, SIZE)
    assert holds(cache, first)
    send(cache, 1)
    assert not holds(cache, first)
    assert holds(cache, second)


def test_a_prompt_takes_only_the_room_that_its_new_tokens_need(cache: PrefixCache) -> None:
    first = send(cache, 900)
    for _ in range(10):
        send(cache, 900, cached_tokens=850)
    assert holds(cache, first)


def test_answers_take_room_too(cache: PrefixCache) -> None:
    scrape(cache, generation_tokens_total=50_000.0)
    first = send(cache, 400)
    scrape(cache, generation_tokens_total=50_900.0)
    assert holds(cache, first)
    scrape(cache, generation_tokens_total=51_100.0)
    assert not holds(cache, first)


def test_a_counter_that_jumps_beyond_reason_empties_it_and_no_more(cache: PrefixCache) -> None:
    scrape(cache, generation_tokens_total=0.0)
    first = send(cache, 400)
    scrape(cache, generation_tokens_total=1e300)
    assert not holds(cache, first)
    second = send(cache, 400)
    assert holds(cache, second)
    send(cache, SIZE + 1)
    assert not holds(cache, second)


def test_answers_from_before_the_first_scrape_take_no_room(cache: PrefixCache) -> None:
    first = send(cache, 400)
    scrape(cache, generation_tokens_total=1e9)
    assert holds(cache, first)


def test_a_restart_of_the_server_empties_it(cache: PrefixCache) -> None:
    scrape(cache, prompt_tokens_total=5000.0, generation_tokens_total=800.0)
    before = send(cache, 100)
    scrape(cache, prompt_tokens_total=10.0, generation_tokens_total=2.0)
    assert not holds(cache, before)
    assert holds(cache, send(cache, 100))


def test_a_server_that_never_reports_a_hit_has_no_cache(cache: PrefixCache) -> None:
    scrape(cache, prefix_hits_total=0.0)
    first = send(cache, 500)
    send(cache, DOUBTED_TOKENS, cached_tokens=DOUBTED_TOKENS)
    assert holds(cache, first)
    send(cache, 500, cached_tokens=400)
    assert not holds(cache, first)
    scrape(cache, prefix_hits_total=64.0)
    assert holds(cache, first)


def test_a_server_that_does_not_count_hits_is_believed(cache: PrefixCache) -> None:
    scrape(cache)
    assert holds(cache, send(cache, 10 * DOUBTED_TOKENS, cached_tokens=10 * DOUBTED_TOKENS))


def test_less_is_expected_of_a_cache_that_is_found_to_hold_less_and_more_again_later() -> None:
    cache = PrefixCache()
    for _ in range(50):
        cache.found(1000.0 * cache.found_share, 500)
    assert cache.found_share == pytest.approx(0.5, rel=0.02)
    for _ in range(200):
        cache.found(1000.0 * cache.found_share, 0)
    assert cache.found_share == LEAST_FOUND
    for _ in range(50):
        cache.found(1000.0 * cache.found_share, 990)
    assert cache.found_share > 0.9


def test_tokens_that_were_not_expected_show_that_there_is_a_cache() -> None:
    cache = PrefixCache(has_hits=False)
    cache.found(0.0, 16)
    assert (cache.has_hits, cache.found_share) == (True, 1.0)


@given(st.lists(st.tuples(st.floats(0, 1e7), st.integers(0, 10**7))))
def test_whatever_servers_say_is_found_the_share_stays_one(said: list[tuple[float, int]]) -> None:
    cache = PrefixCache()
    for expected_tokens, cached_tokens in said:
        cache.found(expected_tokens, cached_tokens)
    assert LEAST_FOUND <= cache.found_share <= 1.0
