"""Requests that bring limits of their own, through the real Envoy with the shipped configuration."""

import asyncio
import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from support.client_load import by_status, chat
from support.process_stack import LocalStack, SharedStack, running
from support.router_queue import FAST, hold, occupy, order_of_letting_in, prepare
from support.stack_fixtures import sharing

NAMES = ("x-slo-ttft-ms", "x-llm-d-slo-ttft-ms")


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


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedStack]:
    """A stack whose only place is taken: others wait for it."""
    with sharing(tmp_path_factory.mktemp("shared"), lambda stack: prepare(stack, max_wait_s=60.0)) as made:
        yield made


def test_the_earliest_limit_is_let_in_first(shared: SharedStack) -> None:
    stack = shared.stack

    async def scenario() -> None:
        slo, llm_d = NAMES
        limits = [{}, {slo: "40000"}, {llm_d: "30000"}, {slo: "-1"}]
        done = await order_of_letting_in(stack, limits)
        assert done == [3, 2, 1, 4]

    shared.run(scenario())


def test_a_request_is_refused_when_its_own_time_is_over_and_others_wait_on(shared: SharedStack) -> None:
    stack = shared.stack

    async def scenario() -> None:
        first = await occupy(stack)
        usual = await hold(stack, 1)
        refused = [await stack.ask(chat(), headers={name: "500"}) for name in NAMES]
        assert by_status(refused) == {503: 2}
        assert {answer.headers["x-extproc-reason"] for answer in refused} == {"too_late"}
        assert not usual.done()
        await stack.change_speed(FAST)
        assert by_status([*await first, await usual]) == {200: 2}

    shared.run(scenario())


def test_a_request_that_would_be_late_is_refused_and_one_without_a_limit_is_let_in(
    stack: LocalStack,
) -> None:
    prepare(stack, max_wait_s=60.0)
    stack.stages["admission"]["mode"] = "reject"
    stack.stages["guard"] = {"max_active": 8, "max_predicted_ttft_s": 60.0}

    async def scenario() -> None:
        async with running(stack):
            ahead = asyncio.create_task(stack.ask(chat(words=3000, max_tokens=2)))
            others = asyncio.gather(*(stack.ask(chat(words=3000, max_tokens=2)) for _ in range(3)))
            await stack.until(lambda state: state["backends"][0]["prompts_ahead_s"] > 0.2)
            refused = await stack.ask(chat(), headers={"x-slo-ttft-ms": "100"})
            assert (refused.status, refused.headers["x-extproc-reason"]) == (503, "too_late")
            assert len(refused.headers["x-request-id"]) == 36
            assert int(refused.headers["retry-after"]) >= 1
            usual = asyncio.create_task(stack.ask(chat(max_tokens=2)))
            await stack.until(lambda state: state["backends"][0]["own"] == 5)
            await stack.change_speed(FAST)
            assert by_status([await ahead, *await others, await usual]) == {200: 5}

    asyncio.run(scenario())


def test_a_limit_that_comes_twice_is_ignored(shared: SharedStack) -> None:
    stack = shared.stack

    async def scenario() -> None:
        first = await occupy(stack)
        twice = asyncio.create_task(ask_with_lines(stack, "x-slo-ttft-ms: 100", "x-slo-ttft-ms: 100"))
        await stack.until(lambda state: state["queue"]["waiting"] == 1)
        refused = await stack.ask(chat(), headers={"x-slo-ttft-ms": "200"})
        assert refused.status == 503
        assert not twice.done(), "it waits as long as a request without a limit"
        await stack.change_speed(FAST)
        assert by_status(await first) == {200: 1}
        assert (await twice).startswith(b"HTTP/1.1 200")

    shared.run(scenario())
