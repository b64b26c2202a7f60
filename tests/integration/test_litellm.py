"""litellm against the stack. It is large, and has an environment of its own: `make test-long` makes it."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from support.process_stack import LocalStack, running

PYTHON = Path(sys.executable).parents[1] / "litellm" / "bin" / "python"
CLIENT = Path(__file__).parents[1] / "support" / "litellm_client.py"
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}


@pytest.mark.long
@pytest.mark.skipif(not PYTHON.exists(), reason="litellm is not installed: make test-long does it")
def test_litellm_gets_the_servers_own_answers(stack: LocalStack) -> None:
    for name in ("vllm-1", "vllm-2"):
        stack.start_sim(name, "--speed", "4")

    async def scenario() -> None:
        async with running(stack):
            client = await asyncio.create_subprocess_exec(
                PYTHON,
                CLIENT,
                stack.envoy.url,
                env=os.environ | OFFLINE,
                stdout=asyncio.subprocess.PIPE,
            )
            out, _ = await client.communicate()
            assert client.returncode == 0
            got = json.loads(out.splitlines()[-1])
            assert {kind: got.pop(kind) for kind in ("vectors", "missing")} == {"vectors": 2, "missing": 404}
            assert len(got) == 7
            assert {word for said in got.values() for word in said.split()} == {"token"}
            await stack.until_idle()

    asyncio.run(scenario())
