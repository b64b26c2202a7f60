"""Equal servers get equal shares again once what made them unequal is gone, on the real stack."""

import asyncio
import io
import json
import time
from collections import Counter
from collections.abc import Sequence

import pytest
from support.client_load import Answer, chat
from support.fault_drill import scripted
from support.process_stack import LocalStack
from support.scripted_backend import (
    END,
    EVENT,
    HEADERS,
    Behaviour,
    ScriptedBackend,
    chunk,
    page,
    stream,
    whole,
)

SERVERS = 3
PATIENCE_S = 30.0
"""What is asked for: level so long after the cause is gone."""


def first_token_after(delay_s: float) -> Behaviour:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(HEADERS)
        await asyncio.sleep(delay_s)
        writer.write(chunk(EVENT) + chunk(END) + chunk(b""))

    return answer


def turning_away(status: str) -> Behaviour:
    async def answer(writer: asyncio.StreamWriter) -> None:
        head, _, body = whole(b"{}", status, "application/json").partition(b"\r\n\r\n")
        writer.write(head + b"\r\nretry-after: 3\r\n\r\n" + body)

    return answer


def gauges(running: int, waiting: int = 0) -> Behaviour:
    text = f"vllm:num_requests_running 1e0\nvllm:num_requests_waiting {waiting}\n"
    counters = "vllm:prompt_tokens_total 5\nvllm:generation_tokens_total 7\n"
    return page((text.replace("1e0", str(running)) + counters).encode())


async def ask_for(stack: LocalStack, for_s: float, every_s: float) -> list[Answer]:
    """Ask at a steady rate, whatever becomes of the requests before."""
    asked, until_s = [], time.monotonic() + for_s
    while time.monotonic() < until_s:
        asked.append(asyncio.create_task(stack.ask(chat())))
        await asyncio.sleep(every_s)
    return list(await asyncio.gather(*asked))


def is_level(answers: Sequence[Answer]) -> bool:
    """Within a fifth of equal shares, and two requests that are chance."""
    got = Counter(answer.backend for answer in answers if answer.is_complete)
    share = len(answers) / SERVERS
    return all(abs(got[f"vllm-{n}"] - share) <= 0.2 * share + 2 for n in range(1, SERVERS + 1))


def test_servers_that_turn_requests_away_are_asked_now_and_then_until_they_take_them(
    stack: LocalStack,
) -> None:
    async def scenario() -> None:
        async with scripted(stack, SERVERS) as backends:
            backends[0].on_request = turning_away("429 Too Many Requests")
            backends[1].on_request = turning_away("503 Service Unavailable")
            answers = await ask_for(stack, 4.0, 0.05)
            refused = Counter(answer.status for answer in answers if not answer.is_complete)
            assert refused.keys() == {429, 503}
            assert max(refused.values()) <= 6, "those before the first is known, and one after each pause"
            state = await stack.state()
            assert state["backends"][2]["reason"] == "ok", "neither failing, nor blamed"
            backends[0].on_request = backends[1].on_request = stream
            await stack.until(lambda state: all(b["reason"] == "ok" for b in state["backends"]))
            await ask_for(stack, 1.0, 0.05)
            assert is_level(await ask_for(stack, 1.5, 0.01))

    asyncio.run(scenario())


def test_a_server_that_does_not_know_a_model_of_its_list_is_asked_for_the_list_and_little_else(
    stack: LocalStack,
) -> None:
    async def scenario() -> None:
        async with scripted(stack, SERVERS) as backends:
            backends[0].on_request = page(b"{}", "404 Not Found")
            answers = await ask_for(stack, 2.5, 0.05)
            assert sum(answer.status == 404 for answer in answers) <= 6
            assert sum(answer.is_complete for answer in answers) >= len(answers) - 6

    asyncio.run(scenario())


def test_a_fleet_whose_gauges_stand_still_refuses_nothing_for_longer_than_5_s(stack: LocalStack) -> None:
    async def scenario() -> None:
        async with scripted(stack, SERVERS) as backends:
            for backend in backends:
                backend.on_scrape = gauges(106, 15)
            await stack.until(lambda state: all(b["foreign"] > 0 for b in state["backends"]))
            began_s = time.monotonic()
            while not (await stack.ask()).is_complete:
                await asyncio.sleep(0.1)
            assert time.monotonic() - began_s < 5.0
            assert sum(backend.requests for backend in backends) == 1

    asyncio.run(scenario())


def test_a_server_whose_gauges_stand_still_and_that_hangs_gets_one_request(stack: LocalStack) -> None:
    async def scenario() -> None:
        async def hang(_: asyncio.StreamWriter) -> None:
            await asyncio.Event().wait()

        async with scripted(stack, SERVERS) as backends:
            backends[0].on_scrape, backends[0].on_request = gauges(106), hang
            for backend in backends[1:]:
                backend.on_request = first_token_after(0.1)
            await stack.until(lambda state: state["backends"][0]["running"] == 106)
            asked = asyncio.create_task(ask_for(stack, 4.0, 0.05))
            await asyncio.sleep(4.0)
            assert backends[0].requests == 1
            asked.cancel()

    asyncio.run(scenario())


async def abort_all(stack: LocalStack, backends: Sequence[ScriptedBackend], count: int) -> None:
    """Fill the fleet with streams that do not end, and cancel them all at once; the gauges stay."""

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(HEADERS + chunk(EVENT))
        await asyncio.Event().wait()

    for backend in backends:
        backend.on_request = endless
    asked = [asyncio.create_task(stack.ask(chat())) for _ in range(count)]
    await stack.until(lambda state: sum(b["own"] for b in state["backends"]) == count * 10 // 11)
    for backend in backends:
        backend.on_scrape = gauges(100)
    await stack.until(lambda state: all(b["running"] == 100 for b in state["backends"]))
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    for backend in backends:
        backend.on_request = first_token_after(0.05)
    await stack.until_idle()


@pytest.mark.long
def test_after_a_mass_abort_the_fleet_serves_within_5_s_and_is_level(stack: LocalStack) -> None:
    async def scenario() -> None:
        async with scripted(stack, SERVERS) as backends:
            await abort_all(stack, backends, 330)
            began_s = time.monotonic()
            while not (await stack.ask()).is_complete:
                await asyncio.sleep(0.1)
            assert time.monotonic() - began_s < 5.0
            for backend in backends:  # vLLM computes again, and its gauges are right
                backend.on_scrape = gauges(0)
            await ask_for(stack, 5.0, 0.1)
            assert is_level(await ask_for(stack, 10.0, 0.1))

    asyncio.run(scenario())


@pytest.mark.long
@pytest.mark.parametrize("cold", [1, SERVERS])
def test_servers_that_were_cold_at_first_have_equal_shares_30_s_later(stack: LocalStack, cold: int) -> None:
    async def scenario() -> None:
        async with scripted(stack, SERVERS) as backends:
            for number, backend in enumerate(backends):
                backend.on_request = first_token_after(4.0 if number < cold else 0.3)
            await ask_for(stack, 8.0, 0.25)
            for backend in backends:
                backend.on_request = first_token_after(0.3)
            await ask_for(stack, PATIENCE_S, 0.25)
            assert is_level(await ask_for(stack, 15.0, 0.1))

    asyncio.run(scenario())


@pytest.mark.long
def test_huge_prompts_that_are_refused_at_once_leave_the_fleet_level(stack: LocalStack) -> None:
    async def scenario() -> None:
        async with scripted(stack, SERVERS) as backends:
            for backend in backends:
                backend.on_request = page(b"{}", "400 Bad Request")
            for _ in range(4):
                body = io.BytesIO(json.dumps(chat(words=600_000)).encode())
                assert (await stack.ask(data=body)).status == 400
            for backend in backends:
                backend.on_request = first_token_after(0.05)
            await ask_for(stack, 5.0, 0.1)
            assert is_level(await ask_for(stack, 10.0, 0.05))

    asyncio.run(scenario())
