"""`guard.max_active: auto` behind a real Envoy: each backend's limit becomes what it runs at once."""

import asyncio

import numpy as np
import pytest
from support.client_load import chat
from support.process_stack import LocalStack, running

PLACES = {"vllm-1": 5, "vllm-2": 28}
"""On either side of the limit with which the search begins."""
OVERLOAD_PER_S = 36.0
"""Of what the two can answer, it is half as much again at a speed of 0.25, and more on a slow machine."""
SETTLING_S, SETTLED_S = 75.0, 75.0

pytestmark = pytest.mark.long


async def overload(stack: LocalStack, time_s: float) -> None:
    """Poisson arrivals, of which some are refused; every tenth prompt is long."""
    loop = asyncio.get_running_loop()
    rng = np.random.default_rng(1)
    begun_s, at_s = loop.time(), 0.0
    async with asyncio.TaskGroup() as tasks:
        while (at_s := at_s + float(rng.exponential(1 / OVERLOAD_PER_S))) < time_s:
            await asyncio.sleep(begun_s + at_s - loop.time())
            words = 1500 if rng.random() < 0.1 else int(rng.integers(20, 200))
            tasks.create_task(stack.ask(chat(words, max_tokens=int(rng.geometric(1 / 32)))))


async def watch(stack: LocalStack) -> dict[str, float]:
    """Each backend's median limit, once it has settled."""
    await asyncio.sleep(SETTLING_S)
    seen: dict[str, list[int]] = {name: [] for name in PLACES}
    ends_s = asyncio.get_running_loop().time() + SETTLED_S
    while asyncio.get_running_loop().time() < ends_s:
        for backend in (await stack.state())["backends"]:
            seen[backend["name"]].append(backend["max_active"])
        await asyncio.sleep(0.25)
    return {name: float(np.median(limits)) for name, limits in seen.items()}


@pytest.mark.parametrize("mode", ["reject", "queue"])
def test_the_limits_settle_at_what_the_backends_run_at_once(stack: LocalStack, mode: str) -> None:
    for name, places in PLACES.items():
        stack.start_sim(name, "--max-num-seqs", str(places), "--speed", "0.25")
    stack.stages |= {"guard": {"max_active": "auto"}, "admission": {"mode": mode}}

    async def scenario() -> None:
        async with running(stack):
            _, settled = await asyncio.gather(overload(stack, SETTLING_S + SETTLED_S), watch(stack))
            assert settled == pytest.approx(PLACES, rel=0.15)

    asyncio.run(scenario())
