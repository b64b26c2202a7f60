"""A model that is scaled to zero: requests wait for its first server, and metrics say that they do."""

import asyncio

from support.client_load import chat
from support.envoy_process import SHIPPED_MESSAGE_TIMEOUT_S
from support.process_stack import LocalStack, running

WAITS = 'extproc_queue_model_requests{model="asleep"} 2.0'
WANTED = 'extproc_servers_wanted{model="asleep"} 1.0'


def test_requests_wait_at_the_router_until_the_first_server_of_their_model_has_started(
    stack: LocalStack,
) -> None:
    stack.message_timeout_s = SHIPPED_MESSAGE_TIMEOUT_S
    stack.stages["admission"] = {"mode": "queue", "queue": {"max_wait_s": 0.5, "models": ["asleep"]}}
    stack.start_sim("vllm-1", "--speed", "4")

    async def scenario() -> None:
        async with running(stack):
            asked = [asyncio.create_task(stack.ask(chat(model="asleep"))) for _ in range(2)]
            assert WANTED in await stack.until_page(lambda page: WAITS in page)
            stack.start_sim("vllm-2", "--speed", "4", "--model", "asleep")
            stack.write_config()
            answers = await asyncio.gather(*asked)
            assert [(answer.status, answer.backend) for answer in answers] == [(200, "vllm-2")] * 2

    asyncio.run(scenario())
