"""A backend dies, freezes or misbehaves under load, while another one is there."""

import asyncio
import signal

import pytest
from support.client_load import chat
from support.fault_drill import (
    CONCURRENCY,
    PER_TRY_TIMEOUT_S,
    Drill,
    impatient,
    scripted,
    send,
    signalled,
    start_sims,
    until_out,
    until_placed,
)
from support.fault_table import FaultTable
from support.patience import until
from support.process_stack import LocalStack, running
from support.scripted_backend import drip, never_answer, reset_after_headers, reset_at_once, stream


def test_a_backend_killed_before_its_first_byte_fails_no_request(
    stack: LocalStack, table: FaultTable
) -> None:
    start_sims(stack)
    fault, body = "backend killed before its first byte", chat(max_tokens=60, stream=False)

    async def scenario() -> None:
        async with running(stack), Drill(stack, table, fault, body) as load:
            await load.until(16)
            await stack.until(lambda state: state["backends"][0]["own"] > 1)
            await signalled(stack.sims["vllm-1"], signal.SIGKILL)
            await until_out(stack)
            await load.until(16)
            stack.start_sim("vllm-1", "--speed", "4")
            with load.recovering():
                await until_placed(load)

    asyncio.run(scenario())


@pytest.mark.fault
def test_a_backend_killed_after_its_first_byte_fails_its_own_streams_alone(
    stack: LocalStack, table: FaultTable
) -> None:
    start_sims(stack, 2, "--speed", "1")
    fault, body = "backend killed after its first byte", chat(max_tokens=100)

    async def scenario() -> None:
        async with running(stack), Drill(stack, table, fault, body, may_fail=True) as load:
            await stack.until(lambda state: state["backends"][0]["running"] == CONCURRENCY // 2)
            await signalled(stack.sims["vllm-1"], signal.SIGKILL)
            with load.recovering():
                await until_out(stack)
            await load.until(16)
        assert len(load.failures) == CONCURRENCY // 2, "those that had begun there"
        assert load.failures == load.errors, "broken off, as they have to be"

    asyncio.run(scenario())


@pytest.mark.fault
def test_a_frozen_backend_fails_no_request_and_is_taken_out(stack: LocalStack, table: FaultTable) -> None:
    impatient(stack)
    start_sims(stack)

    async def scenario() -> None:
        async with running(stack), Drill(stack, table, "backend frozen for 10 s (SIGSTOP)") as load:
            await load.until(16)
            send(stack.sims["vllm-1"], signal.SIGSTOP)
            await until_out(stack)
            await asyncio.sleep(5)
            send(stack.sims["vllm-1"], signal.SIGCONT)
            with load.recovering():
                await until_placed(load)

    asyncio.run(scenario())


@pytest.mark.fault
def test_a_refusing_backend_fails_no_request(stack: LocalStack, table: FaultTable) -> None:
    start_sims(stack)

    async def scenario() -> None:
        async with running(stack):
            await signalled(stack.sims["vllm-1"], signal.SIGKILL)
            async with Drill(stack, table, "backend refuses connections") as load:
                with load.recovering():
                    await until_out(stack)
                await load.until(40)

    asyncio.run(scenario())


def test_a_reset_before_the_first_byte_is_followed_by_exactly_one_more_attempt(
    stack: LocalStack, table: FaultTable
) -> None:
    async def scenario() -> None:
        async with scripted(stack) as (bad, good):
            async with Drill(stack, table, "backend resets before its first byte") as load:
                await load.until(16)
                bad.on_request = reset_at_once
                with load.recovering():
                    await until_out(stack)
                reset = bad.requests
                await load.until(100)
                probes = bad.requests - reset
                bad.on_request = stream
                await until_placed(load)
            assert probes <= 10, "one at a time, with pauses"
            tried_twice = await stack.metric("extproc_retries_total")
            assert bad.requests + good.requests == len(load.answers) + tried_twice, "two attempts, never more"
            # Until Envoy's log of the last failure has come, each client may have sent another request.
            assert 5 <= tried_twice <= 5 + 2 * CONCURRENCY + probes

    asyncio.run(scenario())


@pytest.mark.fault
def test_a_reset_after_the_first_byte_is_never_tried_again(stack: LocalStack, table: FaultTable) -> None:
    fault = "backend resets after its first byte"

    async def scenario() -> None:
        async with scripted(stack) as (bad, good), Drill(stack, table, fault, may_fail=True) as load:
            await load.until(16)
            bad.on_request = reset_after_headers
            with load.recovering():
                await until_out(stack)
            await load.until(30)
            bad.on_request = stream
            await until_placed(load)
        assert load.failures
        assert load.failures == load.errors
        assert bad.requests + good.requests == len(load.answers) + len(load.errors), "one attempt each"

    asyncio.run(scenario())


@pytest.mark.fault
def test_a_backend_that_never_answers_fails_no_stream(stack: LocalStack, table: FaultTable) -> None:
    impatient(stack)
    fault = "backend accepts and never answers"

    async def scenario() -> None:
        async with scripted(stack) as (bad, _), Drill(stack, table, fault) as load:
            await load.until(16)
            bad.on_request = never_answer
            with load.recovering():
                await until_out(stack)
            await load.until(30)
            bad.on_request = stream
            await until_placed(load)
        assert max(answer.ttft_s for answer in load.answers) >= PER_TRY_TIMEOUT_S

    asyncio.run(scenario())


@pytest.mark.fault
def test_a_dying_fleet_is_not_hit_twice_as_hard(stack: LocalStack, table: FaultTable) -> None:
    stack.stages["breaker"] = {"consecutive_failures": 100_000}  # the budget alone

    async def scenario() -> None:
        async with (
            scripted(stack) as backends,
            Drill(stack, table, "both backends reset", may_fail=True) as load,
        ):
            await load.until(16)
            for backend in backends:
                backend.on_request = reset_at_once
            before, sent = len(load.answers), sum(backend.requests for backend in backends)
            await load.until(1500)
            asked = len(load.answers) - before
            attempts = sum(backend.requests for backend in backends) - sent
            for backend in backends:
                backend.on_request = stream
            with load.recovering():
                await until_placed(load, ("vllm-1", "vllm-2"))
        assert attempts - asked < 0.2 * asked + 100 + 50, "what is saved, a fifth, and what is on its way"
        assert {answer.status for answer in load.answers} == {200, 503}

    asyncio.run(scenario())


@pytest.mark.fault
def test_a_slow_loris_is_slow_for_its_own_clients_alone(stack: LocalStack, table: FaultTable) -> None:
    async def scenario() -> None:
        async with scripted(stack) as (bad, good):
            bad.on_request = drip
            async with Drill(stack, table, "backend answers byte by byte") as load:
                await until(lambda: bad.requests)
                await load.until(100)
            assert good.requests > 4 * bad.requests, "its pace and what it has count, so it gets little"
            assert "vllm-1" in {answer.backend for answer in load.answers}

    asyncio.run(scenario())


@pytest.mark.fault
def test_all_backends_may_go_and_come_back(stack: LocalStack, table: FaultTable) -> None:
    start_sims(stack)
    fault = "all backends down and back"

    async def scenario() -> None:
        async with running(stack), Drill(stack, table, fault, may_fail=True) as load:
            await load.until(16)
            for sim in stack.sims.values():
                await signalled(sim, signal.SIGKILL)
            await stack.until(lambda state: {b["reason"] for b in state["backends"]} == {"failing"})
            before = len(load.answers)
            await load.until(30)
            refused = load.answers[before:]
            start_sims(stack)
            with load.recovering():
                await until_placed(load, ("vllm-1", "vllm-2"))
            since = len(load.answers) + CONCURRENCY
            await load.until(30)
        assert {answer.status for answer in refused} == {503}
        assert any("retry-after" in answer.headers for answer in refused)
        assert all(answer.is_complete for answer in load.answers[since:])

    asyncio.run(scenario())


def test_a_second_attempt_is_booked_where_it_is(stack: LocalStack) -> None:
    async def scenario() -> None:
        may_answer = asyncio.Event()

        async def wait_and_stream(writer: asyncio.StreamWriter) -> None:
            await may_answer.wait()
            await stream(writer)

        async with scripted(stack) as (bad, good):
            bad.on_request, good.on_request = reset_at_once, wait_and_stream
            asked = [asyncio.create_task(stack.ask(chat())) for _ in range(6)]
            state = await stack.until(
                lambda state: [backend["own"] for backend in state["backends"]] == [0, 6]
            )
            assert sum(state["decisions"].values()) >= 6
            may_answer.set()
            answers = await asyncio.gather(*asked)
            assert all(answer.is_complete for answer in answers)
            assert {answer.backend for answer in answers} == {"vllm-1", "vllm-2"}, "what was decided"
            await stack.until_idle()

    asyncio.run(scenario())
