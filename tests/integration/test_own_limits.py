"""Requests that bring limits of their own, through the real Envoy with the shipped configuration."""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.client_load import Answer, by_status, chat
from support.process_stack import LocalStack, running
from support.served import TRANSPORTS

SLOW, FAST = 0.2, 200.0
LONG = chat(max_tokens=600)
"""Some minutes on a slow server: it has its place until the test has seen what it wants to, and is fast."""
NAMES = ("x-slo-ttft-ms", "x-llm-d-slo-ttft-ms")


def prepare(stack: LocalStack, transport: str, **admission: Any) -> None:
    """A slow backend with one place."""
    stack.start_sim("vllm-1", "--max-num-seqs", "1", "--speed", str(SLOW))
    address = f"127.0.0.1:{stack.grpc_port}"
    stack.stages["server"] = {"address": address, "drain_s": 2.0, "transport": transport}
    stack.stages["guard"] = {"max_active": 1, "max_predicted_ttft_s": 60.0}
    stack.stages["admission"] = {"mode": "queue", "queue": {"max_wait_s": 60.0}} | admission


async def occupy(stack: LocalStack) -> asyncio.Future[list[Answer]]:
    """A request that takes the only place."""
    asked = asyncio.gather(stack.ask(LONG))
    await stack.until(lambda state: state["backends"][0]["own"] == 1)
    return asked


async def hold(stack: LocalStack, number: int, **headers: str) -> asyncio.Task[Answer]:
    """One more request that waits, `number` in all."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    task = asyncio.create_task(stack.ask(chat(max_tokens=2), headers=named))
    await stack.until(lambda state: state["queue"]["waiting"] == number)
    return task


async def ask_with_lines(stack: LocalStack, *lines: str) -> bytes:
    """Ask with header lines as they are given, which an HTTP client would join; the whole answer."""
    url, body = urlsplit(stack.envoy.url), json.dumps(chat(max_tokens=2))
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = ["POST /v1/chat/completions HTTP/1.1", "host: test", f"content-length: {len(body)}"]
    writer.write("\r\n".join([*head, "connection: close", *lines, "", body]).encode())
    try:
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_earliest_limit_is_let_in_first(stack: LocalStack, transport: str) -> None:
    prepare(stack, transport)

    async def scenario() -> None:
        async with running(stack):
            first = await occupy(stack)
            done: list[int] = []
            waiting = []
            limits = (
                {},
                {"x_slo_ttft_ms": "40000"},
                {"x_llm_d_slo_ttft_ms": "30000"},
                {"x_slo_ttft_ms": "-1"},
            )
            for number, headers in enumerate(limits, start=1):
                task = await hold(stack, number, **headers)
                task.add_done_callback(lambda _, number=number: done.append(number))
                waiting.append(task)
            await stack.change_speed(FAST)
            answers = [*await first, *await asyncio.gather(*waiting)]
            assert all(answer.is_complete for answer in answers)
            assert done == [3, 2, 1, 4]

    asyncio.run(scenario())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_request_is_refused_when_its_own_time_is_over_and_others_wait_on(
    stack: LocalStack, transport: str
) -> None:
    prepare(stack, transport)

    async def scenario() -> None:
        async with running(stack):
            first = await occupy(stack)
            usual = await hold(stack, 1)
            refused = [await stack.ask(chat(), headers={name: "500"}) for name in NAMES]
            assert by_status(refused) == {503: 2}
            assert {answer.headers["x-extproc-reason"] for answer in refused} == {"too_late"}
            assert not usual.done()
            await stack.change_speed(FAST)
            assert by_status([*await first, await usual]) == {200: 2}

    asyncio.run(scenario())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_request_that_would_be_late_is_refused_and_one_without_a_limit_is_let_in(
    stack: LocalStack, transport: str
) -> None:
    prepare(stack, transport, mode="reject")
    stack.stages["guard"] = {"max_active": 8, "max_predicted_ttft_s": 60.0}

    async def scenario() -> None:
        async with running(stack):
            ahead = asyncio.create_task(stack.ask(chat(words=3000, max_tokens=2)))
            others = asyncio.gather(*(stack.ask(chat(words=3000, max_tokens=2)) for _ in range(3)))
            await stack.until(lambda state: state["backends"][0]["prompts_ahead_s"] > 0.2)
            refused = await stack.ask(chat(), headers={"x-slo-ttft-ms": "100"})
            assert (refused.status, refused.headers["x-extproc-reason"]) == (503, "too_late")
            assert int(refused.headers["retry-after"]) >= 1
            usual = asyncio.create_task(stack.ask(chat(max_tokens=2)))
            await stack.until(lambda state: state["backends"][0]["own"] == 5)
            await stack.change_speed(FAST)
            assert by_status([await ahead, *await others, await usual]) == {200: 5}

    asyncio.run(scenario())


def test_a_limit_that_comes_twice_is_ignored(stack: LocalStack) -> None:
    prepare(stack, TRANSPORTS[0])

    async def scenario() -> None:
        async with running(stack):
            first = await occupy(stack)
            twice = asyncio.create_task(ask_with_lines(stack, "x-slo-ttft-ms: 100", "x-slo-ttft-ms: 100"))
            await stack.until(lambda state: state["queue"]["waiting"] == 1)
            refused = await stack.ask(chat(), headers={"x-slo-ttft-ms": "200"})
            assert refused.status == 503
            assert not twice.done(), "it waits as long as a request without a limit"
            await stack.change_speed(FAST)
            assert by_status(await first) == {200: 1}
            assert (await twice).startswith(b"HTTP/1.1 200")

    asyncio.run(scenario())
