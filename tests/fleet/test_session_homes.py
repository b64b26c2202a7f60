"""Where sessions are at home, and when that is asked."""

from typing import Any

import pytest
from support.build import a_backend, a_request

from extproc.fleet.backend import Backend
from extproc.fleet.session_homes import MAX_SESSIONS, SessionHomes
from extproc.fleet.signals import Signals
from extproc.request.prefix import BLOCK_ENDS
from extproc.request.request import Request

ANNA, BEN = 1, 2


def turn(session: int = ANNA, tokens: int = 1000, **changes: Any) -> Request:
    return a_request(session=session, input_tokens=tokens, **changes)


@pytest.fixture
def homes() -> SessionHomes:
    return SessionHomes()


def test_the_home_is_where_the_last_turn_went(homes: SessionHomes, one: Backend, two: Backend) -> None:
    assert homes.near_tokens(turn(), {}) == {}
    homes.sent(one, turn(tokens=800))
    assert homes.near_tokens(turn(), {}) == {one: 800}
    homes.sent(two, turn(tokens=900))
    assert homes.near_tokens(turn(), {}) == {two: 900}
    assert homes.near_tokens(turn(BEN), {}) == {}
    assert homes.near_tokens(turn(session=0), {}) == {}


def test_no_more_is_near_than_the_prompt_has(homes: SessionHomes, one: Backend) -> None:
    homes.sent(one, turn(tokens=10**9))
    assert homes.near_tokens(turn(tokens=50), {}) == {one: 50}


def test_a_prompt_that_can_be_compared_tells_by_itself(
    homes: SessionHomes, one: Backend, two: Backend
) -> None:
    homes.sent(one, turn())
    read = turn(prefix=(1, 2, 3, 4), prompt_bytes=BLOCK_ENDS[3])
    elsewhere, in_part = {two: 500.0}, {one: 250.0, two: 250.0}
    for cached in ({}, elsewhere, in_part):
        assert homes.near_tokens(read, cached) is cached


def test_beyond_the_last_block_that_was_compared_the_session_tells(
    homes: SessionHomes, one: Backend, two: Backend
) -> None:
    homes.sent(one, turn(tokens=3000))
    longer = turn(tokens=4000, prefix=(1, 2, 3, 4), prompt_bytes=4 * BLOCK_ENDS[3])
    cached = {one: 1000.0, two: 1000.0}
    assert homes.near_tokens(longer, cached) == {one: 3000, two: 1000.0}


def test_a_cache_that_had_to_forget_is_no_home(homes: SessionHomes, one: Backend) -> None:
    one.cache.scraped(Signals(0, 0, kv_cache_tokens=1000.0))
    homes.sent(one, turn())
    one.cache.sent(1001.0, 0.0)
    assert homes.near_tokens(turn(), {}) == {}


def test_a_backend_that_has_left_is_no_home(homes: SessionHomes, one: Backend, two: Backend) -> None:
    for session in range(1, 5):
        for _ in range(1 + session % 2):
            homes.sent(one if session < 3 else two, turn(session))
    homes.drop({one})
    assert len(homes) == 2
    assert homes.near_tokens(turn(1), {}) == {}
    assert homes.near_tokens(turn(3), {}) == {two: 1000}


def test_a_flood_of_new_sessions_forgets_none_that_came_back(homes: SessionHomes, one: Backend) -> None:
    for _ in range(2):
        homes.sent(one, turn(ANNA))
    homes.sent(one, turn(BEN))
    for flood in range(10, 10 + 3 * MAX_SESSIONS):
        homes.sent(one, turn(flood, tokens=1))
    assert homes.near_tokens(turn(ANNA), {}) == {one: 1000}
    assert homes.near_tokens(turn(BEN), {}) == {}, "it came once, as they did"
    assert len(homes) == MAX_SESSIONS + 1


def test_memory_is_bounded_also_where_all_come_back() -> None:
    homes, one = SessionHomes(max_sessions=10), a_backend()
    for session in range(1, 100):
        homes.sent(one, turn(session))
        homes.sent(one, turn(session))
    assert len(homes) == 10
    assert homes.near_tokens(turn(99), {}) == {one: 1000}
