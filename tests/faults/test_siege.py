"""One hostile client and one hostile server of three, for minutes: what well-behaved clients notice of it.

`EXTPROC_SIEGE_S` is how long, 600 s by default:
`EXTPROC_SIEGE_S=180 make test-long ARGS=tests/faults/test_siege.py`.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from support.client_load import Answer, chat
from support.fault_drill import resident_bytes
from support.fault_table import write_siege
from support.ports import free_port
from support.process_stack import LocalStack, running

ROOT = Path(__file__).parents[2]
DURATION_S = float(os.environ.get("EXTPROC_SIEGE_S", "600"))
CALM_S, AFTER_S, READ_S = 120.0, 30.0, 10.0
SETTLING_S = 30.0
HONEST = ("vllm-1", "vllm-2")
MAX_TOKENS = 16
CONCURRENCY, WARMING_S, MEASURING_S = 64, 10.0, 15.0
USED = 0.5
"""A share of the load that the two honest servers can answer."""
USERS = 8
MOST_TIMES = 1.5
"""How much longer the slowest first tokens in a hundred may take."""
MOST_DRIFT = 0.2
MOST_GROWN_MIB, MOST_LEFT_MIB = 8.0, 16.0
MIB = 1 << 20
LEARNED = ("own_prompt_s", "max_active", "waits_above")
"""The first is the time of a prompt at the learned pace. The other terms of the estimate go with the load."""


@dataclass
class Seen:
    """Answers to users, when they asked, and what was known of the honest servers each second."""

    asked_s: list[float] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    readings: list[dict[str, float]] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(not answer.is_complete for answer in self.answers)

    @property
    def resident_mib(self) -> float:
        return median(self.resident[-int(READ_S) :]) / MIB

    def learned(self, key: str) -> list[float]:
        """Return the median of each READ_S of the last minute at most."""
        values = [each[key] for each in self.readings[-60:]]
        size = int(READ_S)
        return [median(values[end - size : end]) for end in range(len(values), size - 1, -size)]

    def slow_s(self, begin_s: float = -inf, end_s: float = inf) -> float:
        """Return the p99 of TTFT of the requests sent between two times; 0 if there were none."""
        asked = zip(self.asked_s, self.answers, strict=True)
        took_s = [each.ttft_s for at_s, each in asked if begin_s <= at_s < end_s]
        return float(np.quantile(took_s or [0.0], 0.99))


@dataclass
class Siege:
    """The load before, during and after the attacks; how many there were, and when each kind began."""

    before: Seen
    during: Seen
    after: Seen
    attacks: int
    begun: list[tuple[float, str]]
    per_s: float

    @property
    def failed(self) -> int:
        return sum(seen.failed for seen in (self.before, self.during, self.after))

    @property
    def times_slower(self) -> float:
        return self.during.slow_s() / self.before.slow_s()

    @property
    def drift(self) -> dict[str, float]:
        """Return what was learned of each server, as a share of the nearest of what it had been before."""
        drift = {}
        for key in self.before.readings[-1]:
            before, after = self.before.learned(key), self.after.learned(key)[0]
            nearest = max(min(before), min(max(before), after))
            drift[key] = 1.0 if after == nearest else after / nearest
        return drift

    @property
    def grown_mib(self) -> float:
        """Return by how much the sidecar's peak memory of the last third exceeds that of the first."""
        resident = self.during.resident
        third = len(resident) // 3
        return (max(resident[-third:]) - max(resident[:third])) / MIB

    def slowest(self) -> list[tuple[float, str, float]]:
        """Return TTFT, server and second of the slowest requests during the attacks."""
        asked = zip(self.during.asked_s, self.during.answers, strict=True)
        seen = ((each.ttft_s, each.backend, at_s - self.begun[0][0]) for at_s, each in asked)
        return sorted(seen, reverse=True)[:20]

    def said(self) -> str:
        worst_s, worst = max(
            (self.during.slow_s(from_s, to_s), name) for (from_s, name), (to_s, _) in pairwise(self.begun)
        )
        before, during, after, drift = self.before, self.during, self.after, self.drift.values()
        return (
            f"{DURATION_S:.0f} s, {self.attacks} attacks beside {len(during.answers)} requests of users, "
            f"{self.per_s:.0f} a second: {self.failed} refused or failed, p99 of TTFT "
            f"{before.slow_s() * 1e3:.0f} ms before, {during.slow_s() * 1e3:.0f} ms during "
            f"({self.times_slower:.2f} times; the worst attack, {worst}: {worst_s * 1e3:.0f} ms), "
            f"{after.slow_s() * 1e3:.0f} ms after; the sidecar's memory {before.resident_mib:.0f} MiB "
            f"before, {max(during.resident) / MIB:.0f} at most, {after.resident_mib:.0f} after; what was "
            f"learned of the honest servers {min(drift):.2f} to {max(drift):.2f} of what it was before"
        )


def prompt(rng: np.random.Generator) -> dict[str, Any]:
    """Return a user's request; no two begin alike."""
    body = chat(int(rng.integers(10, 400)), MAX_TOKENS)
    body["messages"][0]["content"] = f"{rng.random()} {body['messages'][0]['content']}"
    return body


async def capacity_per_s(stack: LocalStack) -> float:
    """Measure how many requests the servers answer at most, by clients that come back at once."""
    rng, answered = np.random.default_rng(), 0

    async def client() -> None:
        nonlocal answered
        while True:
            answer = await stack.ask(prompt(rng))
            answered += answer.is_complete
            await asyncio.sleep(0.0 if answer.is_complete else 0.5)

    async with asyncio.TaskGroup() as tasks:
        clients = [tasks.create_task(client()) for _ in range(CONCURRENCY)]
        await asyncio.sleep(WARMING_S)
        before = answered
        await asyncio.sleep(MEASURING_S)
        per_s = (answered - before) / MEASURING_S
        for task in clients:
            task.cancel()
    await stack.until_idle()
    return per_s


async def use(stack: LocalStack, per_s: float, lasts_s: float) -> Seen:
    """Ask as many users do: at a rate, whatever becomes of those before."""
    loop, rng = asyncio.get_running_loop(), np.random.default_rng()
    ends_s = loop.time() + lasts_s
    seen, asked = Seen(), list[asyncio.Task[Answer]]()
    watch = asyncio.create_task(watching(stack, seen))
    while loop.time() < ends_s:
        user = {"x-extproc-tenant": f"user-{rng.integers(USERS)}"}
        seen.asked_s.append(loop.time())
        asked.append(asyncio.create_task(stack.ask(prompt(rng), headers=user)))
        await asyncio.sleep(float(rng.exponential(1 / per_s)))
    watch.cancel()
    seen.answers = list(await asyncio.gather(*asked))
    return seen


async def watching(stack: LocalStack, seen: Seen) -> None:
    """Read every second what the sidecar has learned of the honest servers, and its memory."""
    assert stack.sidecar.pid is not None
    while True:
        state: dict[str, Any] = await stack.state()
        honest = [each for each in state["backends"] if each["name"] in HONEST]
        seen.readings.append(
            {
                f"{each['name']} {key}": (each | each["terms_s"])[key] or inf
                for each in honest
                for key in LEARNED
            }
        )
        seen.resident.append(resident_bytes(stack.sidecar.pid))
        await asyncio.sleep(1.0)


@asynccontextmanager
async def besieging(port: int) -> AsyncIterator[Any]:
    """The process of the hostile client and server."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([".", "tests"])}
    command = (sys.executable, "-m", "support.siege", str(port))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, cwd=ROOT, stdin=pipe, stdout=pipe
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def attacks(hostile: Any, begun: list[tuple[float, str]]) -> int:
    """Note when each attack begins, and return how many were made."""
    while not (line := (await hostile.stdout.readline()).decode().strip()).isdigit():
        assert line, "the attackers have died"
        begun.append((asyncio.get_running_loop().time(), line))
    begun.append((asyncio.get_running_loop().time(), "end"))
    return int(line)


async def besieged(stack: LocalStack) -> Siege:
    """Have users ask before, during and after the attacks."""
    async with AsyncExitStack() as exits:
        await exits.enter_async_context(running(stack))
        per_s = USED * await capacity_per_s(stack)
        stack.backends["vllm-3"] = free_port()
        hostile = await exits.enter_async_context(besieging(stack.backends["vllm-3"]))
        await use(stack, per_s, SETTLING_S)
        before = await use(stack, per_s, CALM_S)
        stack.write_config()
        await stack.until_routable(len(HONEST) + 1)
        hostile.stdin.write(f"{stack.envoy.url} {DURATION_S}\n".encode())
        begun: list[tuple[float, str]] = []
        made, during = await asyncio.gather(attacks(hostile, begun), use(stack, per_s, DURATION_S))
        stack.write_config(HONEST)  # as before, so that the same load tells the same
        after = await use(stack, per_s, AFTER_S)
        return Siege(before, during, after, made, begun, per_s)


@pytest.mark.long
def test_a_hostile_client_and_a_hostile_server_harm_no_one_else(stack: LocalStack) -> None:
    for name in HONEST:
        stack.start_sim(name)
    stack.stages = {"admission": {"queue": {"tenant_header": "x-extproc-tenant"}}}
    siege = asyncio.run(besieged(stack))
    said = siege.said()
    print(said, siege.slowest(), siege.drift, sep="\n")
    if "EXTPROC_FAULT_TABLE" in os.environ:
        write_siege(said)
    assert not siege.failed, said
    assert siege.times_slower < MOST_TIMES, said
    assert siege.grown_mib < MOST_GROWN_MIB, said
    assert siege.after.resident_mib - siege.before.resident_mib < MOST_LEFT_MIB, said
    assert all(abs(each - 1) <= MOST_DRIFT for each in siege.drift.values()), (said, siege.drift)
