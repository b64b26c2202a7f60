"""litellm against the stack."""

import asyncio

import pytest
from support.litellm_answers import LITELLM, litellm_answers
from support.process_stack import LocalStack, running


@pytest.mark.long
@pytest.mark.skipif(not LITELLM.exists(), reason="litellm is not installed: make test-long does it")
def test_litellm_gets_the_servers_own_answers(stack: LocalStack) -> None:
    for name in ("vllm-1", "vllm-2"):
        stack.start_sim(name, "--speed", "4")

    async def scenario() -> None:
        async with running(stack):
            got = await litellm_answers(stack.envoy.url, "sim")
            assert {kind: got.pop(kind) for kind in ("vectors", "missing")} == {"vectors": 2, "missing": 404}
            assert len(got) == 7
            assert {word for said in got.values() for word in said.split()} == {"token"}
            await stack.until_idle()

    asyncio.run(scenario())
