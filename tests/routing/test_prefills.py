"""Prompts that one server computes for another: when, where, in which accounts, and what is learned of it."""

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.build import FAILURES, a_core, a_request, an_endpoint, core_rules, fleet_rules, reserve, scrape

from extproc.exchange.messages import Phase, RouteTo
from extproc.exchange.placement import Placement
from extproc.fleet.backend import Backend
from extproc.fleet.inference_stage import ALL_STAGES, InferenceStage
from extproc.outcomes.facts import PREFILLER_KEY
from extproc.outcomes.outcome import LogEntry
from extproc.outcomes.response_end import TokenUsage
from extproc.outcomes.server_times import TTFT_TAG
from extproc.request.api import EMBEDDING
from extproc.request.prefix import BLOCK_ENDS
from extproc.routing.core import Core, CoreRules
from extproc.routing.gateway_rules import GatewayRules

NOW_S = 100.0
PREFILL, DECODE = frozenset({InferenceStage.PREFILL}), frozenset({InferenceStage.DECODE})
LONG = {"input_tokens": 20_000, "prefix": (1, 2, 3), "prompt_bytes": BLOCK_ENDS[2]}
ROOM = 40


def pd_core(prefillers: int = 1, *, decoding: Any = DECODE, busy: int = ROOM // 2, **changes: Any) -> Core:
    """A core with one server that decodes, `busy` with this many requests, and some that only prefill."""
    rules = core_rules(fleet_rules(max_active=ROOM))
    rules = CoreRules(rules.fleet, rules.policy, rules.admission, **{"gateway": GatewayRules()} | changes)
    members = [an_endpoint(1, stages=decoding)]
    members += [an_endpoint(2 + number, stages=PREFILL) for number in range(prefillers)]
    core = a_core(members, rules, now_s=NOW_S)
    reserve(core.registry.members[0], busy, NOW_S)
    return core


def place(core: Core, now_s: float = NOW_S, **changes: Any) -> Placement:
    return core.place(a_request(**LONG | changes), Phase.REQUEST_HEADERS, now_s)


def prefiller(placement: Placement) -> str:
    assert isinstance(placement.instruction, RouteTo)
    assert placement.instruction.address == "127.0.0.1:1"
    return placement.instruction.prefiller


def prefillers(core: Core) -> list[Backend]:
    return list(core.registry.members[1:])


def is_clear(backend: Backend, now_s: float) -> bool:
    """Whether nothing is in its accounts."""
    return backend.own == 0 and backend.prefilled_at_s <= now_s + 1e-9


def answer(
    core: Core, placement: Placement, now_s: float, ttft_s: float | None = None, **fields: Any
) -> None:
    """Have a placed request end, and learn from it."""
    assert placement.lease is not None
    assert isinstance(placement.instruction, RouteTo)
    if ttft_s is not None:
        placement.lease.answered(now_s)
    placement.lease.end(now_s)
    entry: dict[str, Any] = {
        "started_at_s": 0.0,
        "duration_s": 1.0,
        "status": 200,
        "attempts": 1,
        "response_flags": frozenset(),
        "response_body_bytes": 10,
        "metadata": placement.instruction.metadata,
        "tags": {} if ttft_s is None else {TTFT_TAG: f"{ttft_s * 1e6:.0f}"},
    }
    core.learn(LogEntry(**entry | fields), now_s)


def test_a_long_prompt_for_a_busy_server_is_prefilled_elsewhere_and_a_short_one_is_not() -> None:
    core = pd_core()
    assert prefiller(place(core)) == "127.0.0.1:2"
    assert prefiller(place(core, input_tokens=100)) == ""
    assert core.router.prefilling.placed == 1


def test_the_response_says_where_its_prompt_was_computed() -> None:
    instruction = place(pd_core()).instruction
    assert isinstance(instruction, RouteTo)
    assert instruction.metadata[PREFILLER_KEY] == "vllm-2"


def test_an_idle_server_computes_its_prompts_itself() -> None:
    assert prefiller(place(pd_core(busy=0))) == ""


def test_tokens_in_the_cache_of_the_server_that_answers_need_no_prefill() -> None:
    core = pd_core()
    assert prefiller(place(core)) != ""
    assert prefiller(place(core, NOW_S + 10.0)) == ""


def test_prompts_go_to_the_prefill_server_with_the_shortest_wait_until_none_is_worth_it() -> None:
    core = pd_core(2)
    chosen = [prefiller(place(core, prefix=(), prompt_bytes=0, input_tokens=15_000)) for _ in range(6)]
    assert set(chosen[:2]) == {"127.0.0.1:2", "127.0.0.1:3"}
    assert chosen[-1] == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"has_body": False},
        {"api": EMBEDDING},
        {"endpoints": frozenset({"127.0.0.1:1"})},
    ],
)
def test_requests_that_have_no_use_for_it_are_never_prefilled_elsewhere(changes: dict[str, Any]) -> None:
    core = pd_core()
    assert prefiller(place(core, **changes)) == ""
    assert is_clear(prefillers(core)[0], NOW_S)


def test_a_server_that_serves_another_model_prefills_nothing() -> None:
    core = pd_core()
    prefillers(core)[0].models = frozenset({"other"})
    assert prefiller(place(core)) == ""


def test_a_server_without_a_role_is_not_known_to_take_prefilled_prompts() -> None:
    assert prefiller(place(pd_core(decoding=ALL_STAGES))) == ""


def test_without_servers_that_only_prefill_and_in_own_mode_there_is_none() -> None:
    assert prefiller(place(pd_core(0))) == ""
    assert prefiller(place(pd_core(gateway=None))) == ""


def test_a_prefill_counts_on_its_server_until_the_first_token_once() -> None:
    core = pd_core()
    (backend,), decoding = prefillers(core), core.registry.members[0]
    placement = place(core)
    assert placement.lease is not None
    assert (backend.own, decoding.own) == (1, ROOM // 2 + 1)
    assert backend.prefilled_at_s > NOW_S + 1.0
    assert decoding.prefilled_at_s <= NOW_S
    placement.lease.answered(NOW_S + 1.0)
    placement.lease.answered(NOW_S + 1.1)
    assert is_clear(backend, NOW_S + 1.0)
    assert decoding.own == ROOM // 2 + 1
    answer(core, placement, NOW_S + 2.0, 1.0)
    assert is_clear(backend, NOW_S + 1.0)
    assert decoding.own == ROOM // 2


def test_at_a_first_token_only_the_prompts_that_were_sent_later_wait_yet() -> None:
    core = pd_core(busy=ROOM - 5)
    (backend,) = prefillers(core)
    first, second = (place(core, prefix=(), input_tokens=tokens) for tokens in (10_000, 30_000))
    assert [prefiller(each) for each in (first, second)] == ["127.0.0.1:2"] * 2
    assert backend.prefilled_at_s == pytest.approx(NOW_S + 4.0, abs=0.05), "and some for each iteration"
    assert first.lease is not None
    assert second.lease is not None
    first.lease.answered(NOW_S + 0.5)
    assert backend.prefilled_at_s == pytest.approx(NOW_S + 3.5, abs=0.05)
    second.lease.answered(NOW_S + 2.0)
    first.lease.answered(NOW_S + 2.0)
    assert is_clear(backend, NOW_S + 2.0)


def test_a_request_that_ends_without_a_token_gives_its_prefill_back_and_is_in_no_cache() -> None:
    core = pd_core()
    (backend,) = prefillers(core)
    answer(core, place(core), NOW_S + 0.1, status=0, response_flags=frozenset({"DC"}))
    assert is_clear(backend, NOW_S)
    assert not core.fleet.prefixes.blocks_at((1, 2, 3))


def two_decoding(first: int, second: int) -> Core:
    """A core with two servers that decode, as busy as told, and between them one that prefills."""
    rules = core_rules(fleet_rules(max_active=ROOM))
    rules = CoreRules(rules.fleet, rules.policy, rules.admission, gateway=GatewayRules())
    stages = {1: DECODE, 2: PREFILL, 3: DECODE}
    core = a_core([an_endpoint(each, stages=stages[each]) for each in stages], rules, now_s=NOW_S)
    reserve(core.registry.members[0], first, NOW_S)
    reserve(core.registry.members[2], second, NOW_S)
    return core


def test_a_request_that_another_server_has_answered_keeps_its_prefill_until_its_end() -> None:
    core = two_decoding(20, 22)
    one, backend, three = core.registry.members
    placement = place(core)
    assert prefiller(placement) == "127.0.0.1:2"
    assert placement.lease is not None
    assert core.served_elsewhere(placement.lease, "127.0.0.1:3", NOW_S)
    assert (one.own, backend.own, three.own) == (20, 1, 23)
    placement.lease.end(NOW_S + 1.0)
    assert (one.own, backend.own, three.own) == (20, 0, 22)


def test_replicas_hear_of_a_prompt_where_it_is_prefilled_until_its_first_token() -> None:
    core, other = pd_core(has_replicas=True), pd_core(has_replicas=True)
    assert core.replicas is not None
    assert other.replicas is not None
    placement = place(core)
    assert prefiller(placement) == "127.0.0.1:2"
    other.replicas.heard("10.0.0.1", core.replicas.take(), NOW_S)
    (prefilling,) = prefillers(other)
    assert prefilling.prefilled_at_s == prefillers(core)[0].prefilled_at_s > NOW_S
    assert placement.lease is not None
    placement.lease.answered(NOW_S + 0.1)
    other.replicas.heard("10.0.0.1", core.replicas.take(), NOW_S + 0.1)
    assert is_clear(prefilling, NOW_S + 0.1)


@pytest.mark.parametrize("is_prefilled_elsewhere", [True, False])
def test_servers_that_answer_are_compared_by_what_is_left_for_them(is_prefilled_elsewhere: bool) -> None:
    core = two_decoding(20, 30)
    one, backend, _ = core.registry.members
    one.pace = replace(one.pace, token_s=20 * one.pace.token_s)  # computes prompts slowly, and has less to do
    if not is_prefilled_elsewhere:
        backend.scrape_refused(NOW_S)
        backend.breaker.fail(NOW_S)
        backend.breaker.fail(NOW_S)
    instruction = place(core).instruction
    assert isinstance(instruction, RouteTo)
    found = (instruction.address, instruction.prefiller)
    assert found == (("127.0.0.1:1", "127.0.0.1:2") if is_prefilled_elsewhere else ("127.0.0.1:3", ""))


def test_requests_whose_prompts_are_computed_elsewhere_do_not_make_a_server_look_full() -> None:
    core = pd_core(8, busy=0)
    decoding = core.registry.members[0]
    reserve(decoding, ROOM // 2, NOW_S - 5.0)
    split = [place(core, prefix=(), input_tokens=30_000) for _ in range(8)]
    assert all(prefiller(each) for each in split)
    for second in range(2, 8):
        scrape(decoding, running=ROOM // 2, now_s=NOW_S + second, ended_total=float(second))
    assert decoding.places == inf
    for each in split:
        assert each.lease is not None
        each.lease.end(NOW_S + 8.0)
    for second in range(10, 16):  # ten of its own are in flight, and it shows eight
        scrape(decoding, running=ROOM // 2 - 2, now_s=NOW_S + second, ended_total=float(second))
    assert decoding.places == ROOM // 2 - 2


def test_a_prefill_server_that_nothing_listens_at_gets_none() -> None:
    core = pd_core()
    for _ in range(FAILURES):
        prefillers(core)[0].scrape_refused(NOW_S)
    assert prefiller(place(core)) == ""


def test_failures_of_split_requests_take_the_prefill_server_out_and_not_the_one_that_answers() -> None:
    core = pd_core()
    for number in range(FAILURES):
        split = place(core, prefix=(number,), body_bytes=number)
        assert prefiller(split) == "127.0.0.1:2"
        answer(core, split, NOW_S, status=502)
    assert prefiller(place(core)) == ""
    assert not core.registry.members[0].breaker.is_tripped
    (backend,) = prefillers(core)
    assert is_clear(backend, NOW_S)
    probe = place(core, backend.breaker.admits_at_s, prefix=(99,))
    assert prefiller(probe) == "127.0.0.1:2"
    answer(core, probe, NOW_S + 2.0, 1.0)
    assert not backend.breaker.is_tripped


def test_slow_transfers_are_learned_and_forgotten_in_time() -> None:
    core = pd_core()
    while prefiller(slow := place(core, prefix=())) != "":
        answer(core, slow, NOW_S, 8.0)
    placed = core.router.prefilling.placed
    assert placed <= 3
    later_s = NOW_S + 600.0
    assert prefiller(place(core, later_s, prefix=())) == "127.0.0.1:2"


def test_the_pace_and_cache_of_the_server_that_answers_learn_nothing_from_another_ones_work() -> None:
    core = pd_core()
    decoding = core.registry.members[0]
    pace, found_share = decoding.pace, decoding.cache.found_share
    answer(core, place(core), NOW_S, 9.0, usage=TokenUsage(20_000, 5, 3))
    assert (decoding.pace, decoding.cache.found_share) == (pace, found_share)


def test_prefills_that_wait_for_their_first_token_elsewhere_are_no_queue() -> None:
    core = pd_core()
    (backend,) = prefillers(core)
    place(core, prefix=())
    place(core, prefix=())
    for second in range(2, 12):
        scrape(backend, running=0.0, waiting=0.0, now_s=NOW_S + second)
    assert backend.own > 0
    assert backend.prefilled_at_s <= NOW_S + 11.0


STEPS = st.lists(st.tuples(st.sampled_from(["place", "first token", "end", "scrape"]), st.integers(0, 9)))


@given(STEPS)
def test_whatever_happens_every_account_is_empty_in_the_end(steps: list[tuple[str, int]]) -> None:
    core, now_s = pd_core(2), NOW_S
    placed: list[Placement] = []
    for step, number in steps:
        now_s += 0.1
        if step == "place":
            placed.append(place(core, now_s, prefix=(number,), input_tokens=4_000 * number))
        elif step == "scrape":
            scrape(prefillers(core)[number % 2], running=number % 3, waiting=number % 2, now_s=now_s)
        elif placed and (lease := placed[number % len(placed)].lease) is not None:
            lease.answered(now_s) if step == "first token" else lease.end(now_s)
    for placement in placed:
        if placement.lease is not None:
            answer(core, placement, now_s, 0.5 if len(placed) % 2 else None)
    assert [member.own for member in core.registry.members] == [ROOM // 2, 0, 0]
    for backend in prefillers(core):
        scrape(backend, now_s=now_s + 1.0)
        assert is_clear(backend, now_s + 1.0)
