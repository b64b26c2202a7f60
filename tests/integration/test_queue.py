"""Requests that wait at the router, with a real Envoy that is asked for patience.

Either transport holds, lets go and ends them alike: tests/adapters/envoy/test_server_conformance.py.
"""

import asyncio
from collections.abc import Iterator

import pytest
from support.client_load import by_status, chat
from support.envoy_process import SHIPPED_MESSAGE_TIMEOUT_S
from support.process_stack import LocalStack, SharedStack, running
from support.router_queue import FAST, hold, occupy, order_of_letting_in, prepare, until_waiting
from support.stack_fixtures import sharing


def test_a_burst_beyond_the_limit_is_queued_and_no_request_is_refused(
    stack: LocalStack,
) -> None:
    prepare(stack, max_active=3)

    async def scenario() -> None:
        async with running(stack):
            first = await occupy(stack, places=3)
            burst = asyncio.gather(*(stack.ask(chat(max_tokens=6)) for _ in range(27)))
            seen = [await until_waiting(stack, 27)]
            await stack.change_speed(FAST)
            while not burst.done():
                seen.append(await stack.state())
            answers = [*await first, *await burst]
            assert all(answer.is_complete and answer.backend == "vllm-1" for answer in answers)
            assert max(state["backends"][0]["own"] for state in seen) == 3
            state = await stack.until_idle()
            assert state["queue"]["waiting"] == 0
            assert state["queue"]["ended"] == {"let_in": 27}

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedStack]:
    """A stack whose only place is taken: four may wait for it."""
    with sharing(
        tmp_path_factory.mktemp("shared"),
        lambda stack: prepare(stack, min_priority=-1, max_priority=1, max_waiting=4),
    ) as made:
        yield made


def test_they_are_let_in_by_priority_then_in_the_order_of_their_arrival(shared: SharedStack) -> None:
    stack = shared.stack

    async def scenario() -> None:
        headers = [{"x-extproc-priority": priority} for priority in ("0", "-1", "0", "7")]
        done = await order_of_letting_in(stack, headers)
        assert done == [4, 1, 3, 2]

    shared.run(scenario())


def test_when_its_time_is_over_a_request_is_refused_and_not_passed_on(
    stack: LocalStack,
) -> None:
    stack.message_timeout_s = SHIPPED_MESSAGE_TIMEOUT_S
    prepare(stack, max_wait_s=SHIPPED_MESSAGE_TIMEOUT_S + 0.5)

    async def scenario() -> None:
        async with running(stack):
            first = await occupy(stack)
            refused = await stack.ask()
            assert (refused.status, refused.layer) == (503, "reject")
            assert refused.headers["x-extproc-reason"] == "queue_timeout"
            assert int(refused.headers["retry-after"]) >= 1
            assert b'"overloaded_error"' in refused.body
            assert not first.done()
            await stack.change_speed(FAST)
            assert by_status(await first) == {200: 1}

    asyncio.run(scenario())


def test_a_full_queue_refuses_at_once(shared: SharedStack) -> None:
    stack = shared.stack

    async def scenario() -> None:
        first = await occupy(stack)
        waiting = [await hold(stack, number) for number in (1, 2, 3, 4)]
        refused = await stack.ask()
        assert (refused.status, refused.headers["x-extproc-reason"]) == (503, "queue_full")
        assert not first.done()
        await stack.change_speed(FAST)
        assert by_status([*await first, *await asyncio.gather(*waiting)]) == {200: 5}

    shared.run(scenario())


def test_a_client_that_leaves_gives_its_place_up(shared: SharedStack) -> None:
    stack = shared.stack

    async def scenario() -> None:
        first = await occupy(stack)
        gone, stays = await hold(stack, 1), await hold(stack, 2)
        gone.cancel()
        await until_waiting(stack, 1)
        assert not first.done()
        await stack.change_speed(FAST)
        assert by_status([*await first, await stays]) == {200: 2}
        state = await stack.until_idle()
        assert state["queue"]["waiting"] == 0
        assert state["queue"]["ended"]["client_left"] == 1

    shared.run(scenario())


def test_waiting_requests_are_served_by_envoys_pool_when_the_sidecar_ends(
    stack: LocalStack,
) -> None:
    prepare(stack)

    async def scenario() -> None:
        async with running(stack):
            first = await occupy(stack)
            waiting = [await hold(stack, number) for number in range(1, 6)]
            await asyncio.to_thread(stack.sidecar.stop, 5.0)
            await stack.change_speed(FAST)
            answers = [*await first, *await asyncio.gather(*waiting)]
            assert all(answer.is_complete for answer in answers)
            assert {answer.backend for answer in answers[1:]} == {""}

    asyncio.run(scenario())


def test_waiting_requests_are_served_by_envoys_pool_when_the_sidecar_is_killed(stack: LocalStack) -> None:
    prepare(stack)

    async def scenario() -> None:
        async with running(stack):
            first = await occupy(stack)
            waiting = [await hold(stack, number) for number in range(1, 6)]
            await asyncio.to_thread(stack.sidecar.stop, 0.0)
            await stack.change_speed(FAST)
            answers = [*await first, *await asyncio.gather(*waiting)]
            assert all(answer.is_complete for answer in answers)

    asyncio.run(scenario())


def test_a_backend_that_joins_gets_the_waiting_requests(stack: LocalStack) -> None:
    prepare(stack)

    async def scenario() -> None:
        async with running(stack):
            first = await occupy(stack)
            held = await hold(stack, 1)
            stack.start_sim("vllm-2", "--max-num-seqs", "1")
            stack.write_config()
            assert (await held).backend == "vllm-2"
            assert not first.done()
            await stack.change_speed(FAST)
            assert by_status(await first) == {200: 1}

    asyncio.run(scenario())
