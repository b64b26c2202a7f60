"""Prompts that were refused or given up: nothing of them is taken for computed."""

from typing import Any

import pytest
from support.build import a_core, a_request, core_rules, endpoints, fleet_rules, scrape

from extproc.exchange.messages import Phase, RouteTo
from extproc.fleet.backend import Backend
from extproc.outcomes.outcome import LogEntry
from extproc.request.prefix import BLOCK_ENDS
from extproc.request.request import Request
from extproc.routing.bookings import MAX_AWAITED
from extproc.routing.core import Core

CONVERSATION = (1, 2, 3, 4)
KV_CACHE_TOKENS = 20_000.0
REFUSED: list[dict[str, Any]] = [
    {"status": 400},
    {"status": 0, "response_flags": frozenset({"DC"})},
    {"status": 200, "response_flags": frozenset({"DC"})},
]


@pytest.fixture
def core() -> Core:
    """One backend, with room for the KV of 20,000 tokens."""
    core = a_core(endpoints(1), core_rules(fleet_rules(max_active=100)))
    scrape(only(core), kv_cache_tokens=KV_CACHE_TOKENS, now_s=0.5)
    return core


def only(core: Core) -> Backend:
    (backend,) = core.registry.members
    return backend


def a_prompt(*chain: int, tokens: int = 5000) -> Request:
    return a_request(input_tokens=tokens, prefix=chain, prompt_bytes=BLOCK_ENDS[len(chain) - 1])


def ask(core: Core, request: Request, **ending: Any) -> None:
    """Have a request placed and ended; `ending` are fields of its log entry, by default it is answered."""
    placement = core.place(request, Phase.REQUEST_BODY, 1.0)
    assert isinstance(placement.instruction, RouteTo)
    assert placement.lease is not None
    placement.lease.end(1.1)
    answered = {"response_flags": frozenset(), "tags": {"ttft_us": "50000"}} if not ending else {"tags": {}}
    fields = {"status": 200, "response_flags": frozenset(), **answered, **ending}
    entry = LogEntry(
        started_at_s=0.0,
        duration_s=0.1,
        attempts=1,
        response_body_bytes=0,
        metadata=placement.instruction.metadata,
        **fields,
    )
    core.learn(entry, 1.2)


def cached(core: Core, request: Request) -> float:
    return core.fleet.prefixes.cached_tokens(request).get(only(core), 0.0)


def test_a_prompt_that_was_answered_is_expected_in_the_cache(core: Core) -> None:
    ask(core, a_prompt(*CONVERSATION))
    assert cached(core, a_prompt(*CONVERSATION)) == 5000


@pytest.mark.parametrize("ending", REFUSED)
def test_a_prompt_that_was_refused_or_given_up_is_not(core: Core, ending: dict[str, Any]) -> None:
    ask(core, a_prompt(*CONVERSATION), **ending)
    assert cached(core, a_prompt(*CONVERSATION)) == 0
    assert len(core.fleet.prefixes) == 0


@pytest.mark.parametrize("ending", REFUSED)
def test_refused_giants_do_not_make_a_conversation_forgotten(core: Core, ending: dict[str, Any]) -> None:
    ask(core, a_prompt(*CONVERSATION))
    for number in range(3):
        ask(core, a_prompt(100 + number, tokens=15_000), **ending)
    assert cached(core, a_prompt(*CONVERSATION)) == 5000


@pytest.mark.parametrize("ending", REFUSED)
def test_a_refused_turn_leaves_the_turns_before_it_known(core: Core, ending: dict[str, Any]) -> None:
    ask(core, a_prompt(*CONVERSATION))
    ask(core, a_prompt(*CONVERSATION, 5, 6), **ending)
    assert cached(core, a_prompt(*CONVERSATION)) == 5000
    assert core.fleet.prefixes.blocks_at((*CONVERSATION, 5, 6)) == {only(core): 4}


def test_refused_requests_do_not_make_a_server_seem_to_have_no_cache(core: Core) -> None:
    ask(core, a_prompt(*CONVERSATION))
    for _ in range(10):
        ask(core, a_prompt(*CONVERSATION), status=400)
    scrape(only(core), prefix_hits_total=0.0, now_s=1.3)
    assert cached(core, a_prompt(*CONVERSATION)) == 5000


def test_what_is_kept_of_ended_requests_is_bounded_where_no_outcome_comes(core: Core) -> None:
    bookings = core.router.bookings
    numbers = []
    for _ in range(MAX_AWAITED + 10):
        booking = bookings.open(only(core), a_request(), 1.0)
        booking.end(1.0)
        numbers.append(booking.number)
    known = [number for number in numbers if bookings.settle(number, is_computed=True) is not None]
    assert known == numbers[10:]
