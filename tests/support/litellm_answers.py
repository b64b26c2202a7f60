"""litellm, which is large, in an environment of its own: `make test-long` and `make test-vllm` make it."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

LITELLM = Path(sys.executable).parents[1] / "litellm" / "bin" / "python"
CLIENT = Path(__file__).with_name("litellm_client.py")
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}


async def litellm_answers(url: str, model: str) -> dict[str, Any]:
    """What litellm gets for one request of each kind, by kind; see `litellm_client`."""
    client = await asyncio.create_subprocess_exec(
        LITELLM, CLIENT, url, model, env=os.environ | OFFLINE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await client.communicate()
    assert client.returncode == 0
    answers: dict[str, Any] = json.loads(out.splitlines()[-1])
    return answers
