"""One hostile client and one hostile server of three, for minutes: what well-behaved clients notice of it.

`EXTPROC_SIEGE_S` is how long, 600 s by default:
`EXTPROC_SIEGE_S=60 make test-long ARGS=tests/faults/test_siege.py`.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.client_load import Answer, Load, chat
from support.fault_drill import resident_bytes
from support.fault_table import write_siege
from support.ports import free_port
from support.process_stack import LocalStack, running

ROOT = Path(__file__).parents[2]
DURATION_S = float(os.environ.get("EXTPROC_SIEGE_S", "600"))
CALM_S, AFTER_S = 60.0, 30.0
PLACES = 8
HONEST = ("vllm-1", "vllm-2")
USED = 0.5
"""A share of the load that the two honest servers can answer."""
MOST_TIMES, MARGIN_S = 1.5, 0.1
"""How much longer the slowest first tokens in a hundred may take; the attackers use the same machine."""
MAX_GROWTH_BYTES = 64 << 20
MAX_TOKENS = 16


async def capacity_per_s(stack: LocalStack) -> float:
    """Measure how many requests the honest servers answer with all places taken."""
    stack.write_config(HONEST)
    await stack.until(lambda state: [each["name"] for each in state["backends"]] == list(HONEST))
    async with Load(stack, len(HONEST) * PLACES, chat(200, MAX_TOKENS)) as load:
        await load.until(2 * PLACES)
        begun_s = asyncio.get_running_loop().time()
        await load.until(100)
        took_s = asyncio.get_running_loop().time() - begun_s
    stack.write_config()
    await stack.until_routable(3)
    return 100 / took_s


async def use(stack: LocalStack, per_s: float, lasts_s: float) -> list[Answer]:
    """Ask as many users do: at a rate, whatever becomes of those before; no two prompts begin alike."""
    loop, rng = asyncio.get_running_loop(), np.random.default_rng()
    ends_s = loop.time() + lasts_s
    asked = []
    while loop.time() < ends_s:
        body = chat(int(rng.integers(10, 400)), MAX_TOKENS)
        body["messages"][0]["content"] = f"{rng.random()} {body['messages'][0]['content']}"
        asked.append(asyncio.create_task(stack.ask(body)))
        await asyncio.sleep(float(rng.exponential(1 / per_s)))
    return list(await asyncio.gather(*asked))


def slow_s(answers: list[Answer]) -> float:
    return float(np.quantile([answer.ttft_s for answer in answers], 0.99))


async def learned_s(stack: LocalStack) -> dict[str, float]:
    """Return the estimates of the honest servers while they are idle."""
    await stack.until_idle()
    state: dict[str, Any] = await stack.state()
    return {each["name"]: each["expected_s"] for each in state["backends"] if each["name"] in HONEST}


@asynccontextmanager
async def besieging(port: int) -> AsyncIterator[Any]:
    """The process of the hostile client and server."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([".", "tests"])}
    command = (sys.executable, "-m", "support.siege", str(port))
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(*command, env=environment, cwd=ROOT, **pipes)
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


@pytest.mark.long
def test_a_hostile_client_and_a_hostile_server_harm_no_one_else(stack: LocalStack) -> None:
    for name in HONEST:
        stack.start_sim(name, "--speed", "1", "--max-num-seqs", str(PLACES))

    async def scenario() -> None:
        async with AsyncExitStack() as exits:
            stack.backends["vllm-3"] = free_port()
            hostile = await exits.enter_async_context(besieging(stack.backends["vllm-3"]))
            await exits.enter_async_context(running(stack))
            per_s = USED * await capacity_per_s(stack)
            before = await use(stack, per_s, CALM_S)
            known_s = await learned_s(stack)
            assert stack.sidecar.pid is not None
            resident = resident_bytes(stack.sidecar.pid)
            hostile.stdin.write(f"{stack.envoy.url} {DURATION_S}\n".encode())
            during = await use(stack, per_s, DURATION_S)
            attacks = int(await hostile.stdout.readline())
            grown = resident_bytes(stack.sidecar.pid) - resident
            after = await use(stack, per_s, AFTER_S)
            drift = {name: since_s / known_s[name] for name, since_s in (await learned_s(stack)).items()}
        failed = [answer for answer in (*before, *during, *after) if not answer.is_complete]
        said = (
            f"{DURATION_S:.0f} s, {attacks} attacks beside {len(during)} requests of users, "
            f"{per_s:.0f} a second: {len(failed)} refused or failed, p99 of TTFT "
            f"{slow_s(before) * 1e3:.0f} ms before, {slow_s(during) * 1e3:.0f} ms during, "
            f"{slow_s(after) * 1e3:.0f} ms after; the sidecar's memory {grown / 2**20:+.0f} MiB; "
            f"what is expected of the honest servers {min(drift.values()):.2f} to {max(drift.values()):.2f} "
            "of what it was before"
        )
        print(said)
        if "EXTPROC_FAULT_TABLE" in os.environ:
            write_siege(said)
        assert not failed, said
        assert slow_s(during) < MOST_TIMES * slow_s(before) + MARGIN_S, said
        assert grown < MAX_GROWTH_BYTES, said
        assert all(0.8 <= each <= 1.2 for each in drift.values()), said

    asyncio.run(scenario())
