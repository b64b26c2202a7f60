"""Twice what the servers can answer, well below the number of requests that they may hold, and no model."""

import asyncio
from collections import Counter

import numpy as np
from support.client_load import Answer, chat
from support.process_stack import LocalStack, running

LIMIT_S = 3.0
PLACES = 2
RATE_PER_S, REQUESTS = 20.0, 140
BODY = chat(max_tokens=8)
"""Some 0.4 s on a server of speed 1: two servers answer ten a second."""


async def overload(stack: LocalStack) -> list[Answer]:
    loop = asyncio.get_running_loop()
    at_s = loop.time() + np.cumsum(np.random.default_rng(1).exponential(1 / RATE_PER_S, REQUESTS))

    async def one(sent_s: float) -> Answer:
        await asyncio.sleep(sent_s - loop.time())
        return await stack.ask(BODY)

    return await asyncio.gather(*map(one, at_s.tolist()))


def test_requests_are_refused_while_the_wait_is_too_long_and_served_once_the_queue_has_drained(
    stack: LocalStack,
) -> None:
    for name in ("vllm-1", "vllm-2"):
        stack.start_sim(name, "--max-num-seqs", str(PLACES))
    stack.stages["guard"] = {"max_predicted_ttft_s": LIMIT_S}

    async def scenario() -> None:
        async with running(stack):
            flood = asyncio.create_task(overload(stack))
            state = await stack.until(
                lambda state: (
                    state["reasons"].get("reject.wait_too_long", 0) > 10
                    and any(backend["waits_above"] is not None for backend in state["backends"])
                )
            )
            assert all(backend["load"] < backend["max_active"] for backend in state["backends"])
            answers = await flood
            statuses = Counter(answer.status for answer in answers)
            assert statuses.keys() == {200, 503}
            assert statuses[200] > REQUESTS / 4
            for refused in (answer for answer in answers if answer.status == 503):
                assert refused.headers["x-extproc-reason"] == "wait_too_long"
                assert 1 <= int(refused.headers["retry-after"]) <= 60
            served = [answer for answer in answers if answer.status == 200]
            assert all(answer.is_complete for answer in served)
            # Nobody refused, it would be five seconds; and who was under way while a machine stalls is late.
            assert np.median([answer.ttft_s for answer in served]) < LIMIT_S
            await stack.until(
                lambda state: all(backend["waits_above"] is None for backend in state["backends"])
            )
            calm = await stack.ask_many(20, concurrency=2 * PLACES, body=BODY)
            assert {answer.status for answer in calm} == {200}

    asyncio.run(scenario())
