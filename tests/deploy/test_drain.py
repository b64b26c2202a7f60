"""The preStop hooks: they end when nothing is in flight any more, and nothing fails meanwhile."""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from support.client_load import chat
from support.manifests import DEPLOY
from support.patience import PATIENCE_S
from support.process_stack import LocalStack, running

ENVOY_SCRIPT = DEPLOY / "kubernetes" / "base" / "drain-envoy.sh"
VLLM_SCRIPT = DEPLOY / "kubernetes" / "vllm" / "drain_vllm.py"


async def started(command: Sequence[str | Path], **settings: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command, env=os.environ | {"DELAY_S": "0", "LOOK_S": "0.2"} | settings
    )


def test_envoy_waits_for_requests_in_flight_and_takes_others_meanwhile(stack: LocalStack) -> None:
    stack.start_sim("vllm-1", "--speed", "1")

    async def scenario() -> None:
        async with running(stack):
            under_way = asyncio.create_task(stack.ask(chat(max_tokens=400)))
            await stack.until(lambda state: state["backends"][0]["own"] == 1)
            host, _, port = stack.envoy.admin_url.removeprefix("http://").partition(":")
            hook = await started(["bash", ENVOY_SCRIPT], ADMIN_HOST=host, ADMIN_PORT=port)
            assert (await stack.ask(chat(max_tokens=1))).is_complete, "somebody who has not heard yet"
            assert hook.returncode is None, "it waits for the long one"
            await stack.change_speed(20.0)
            assert (await under_way).is_complete
            async with asyncio.timeout(PATIENCE_S):
                assert await hook.wait() == 0

    asyncio.run(scenario())


def test_vllm_waits_for_requests_in_flight(stack: LocalStack) -> None:
    stack.start_sim("vllm-1", "--speed", "1")

    async def scenario() -> None:
        async with running(stack):
            under_way = asyncio.create_task(stack.ask(chat(max_tokens=100)))
            await stack.until(lambda state: (state["backends"][0]["running"] or 0) == 1)
            hook = await started([sys.executable, VLLM_SCRIPT], PORT=str(stack.backends["vllm-1"]))
            await stack.change_speed(20.0)
            assert (await under_way).is_complete
            assert hook.returncode is None, "the gauges have to be quiet for a while"
            async with asyncio.timeout(PATIENCE_S):
                assert await hook.wait() == 0

    asyncio.run(scenario())


def test_a_vllm_that_is_gone_is_not_waited_for() -> None:
    async def scenario() -> None:
        hook = await started([sys.executable, VLLM_SCRIPT], PORT="1")
        async with asyncio.timeout(PATIENCE_S):
            assert await hook.wait() == 0

    asyncio.run(scenario())
