"""The sidecar dies, freezes or restarts under load: no request may fail."""

import asyncio
import signal

import pytest
from support.client_load import chat
from support.envoy_process import SHIPPED_MESSAGE_TIMEOUT_S
from support.fault_drill import Drill, send, signalled, start_sims, until_placed
from support.fault_table import FaultTable
from support.process_stack import LocalStack, running

BOTH = ("vllm-1", "vllm-2")


def test_a_killed_sidecar_fails_no_request_and_takes_over_again(stack: LocalStack, table: FaultTable) -> None:
    start_sims(stack)

    async def scenario() -> None:
        async with running(stack), Drill(stack, table, "sidecar killed (SIGKILL)") as load:
            await load.until(30)
            await signalled(stack.sidecar, signal.SIGKILL)
            await load.until(50)
            with load.recovering():
                stack.sidecar.start()
                await until_placed(load, BOTH)
        assert sum(answer.layer == "" for answer in load.answers) > 30, "there was nobody to place them"
        assert load.answers[-1].layer == "least_load"

    asyncio.run(scenario())


def test_sigterm_drains_without_a_failed_request(stack: LocalStack, table: FaultTable) -> None:
    start_sims(stack)
    body = chat(max_tokens=60)

    async def scenario() -> None:
        async with running(stack), Drill(stack, table, "sidecar ended (SIGTERM)", body) as load:
            await load.until(16)
            await signalled(stack.sidecar, signal.SIGTERM)
            assert stack.sidecar.ending() == "ended with status 0"
            await load.until(16)
            with load.recovering():
                stack.sidecar.start()
                await until_placed(load, BOTH)

    asyncio.run(scenario())


@pytest.mark.fault
def test_a_frozen_sidecar_delays_requests_and_fails_none(stack: LocalStack, table: FaultTable) -> None:
    stack.message_timeout_s = SHIPPED_MESSAGE_TIMEOUT_S
    start_sims(stack)

    async def scenario() -> None:
        async with running(stack), Drill(stack, table, "sidecar frozen for 5 s (SIGSTOP)") as load:
            await load.until(20)
            before = len(load.answers)
            send(stack.sidecar, signal.SIGSTOP)
            await asyncio.sleep(5)
            frozen = load.answers[before + 8 :]
            send(stack.sidecar, signal.SIGCONT)
            with load.recovering():
                await until_placed(load, BOTH)
        assert len(frozen) >= 8, "Envoy gave up waiting"
        assert {answer.backend for answer in frozen} <= {"", *BOTH}
        assert "" in {answer.backend for answer in frozen}
        assert min(answer.ttft_s for answer in frozen if not answer.backend) >= 1.0

    asyncio.run(scenario())


@pytest.mark.fault
def test_a_restart_loses_no_request_in_flight(stack: LocalStack, table: FaultTable) -> None:
    start_sims(stack, 2, "--speed", "1")
    fault, body = "sidecar restarted with requests in flight", chat(max_tokens=400)

    async def scenario() -> None:
        async with running(stack), Drill(stack, table, fault, body) as load:
            await stack.until(lambda state: sum(b["own"] for b in state["backends"]) == 8)
            with load.recovering():
                await signalled(stack.sidecar, signal.SIGTERM)
                assert not load.answers, "all are in flight"
                stack.sidecar.start()
                await stack.until_routable(2)
            assert not load.answers, "and still are"
            await load.until(16)

    asyncio.run(scenario())
