"""Hours in minutes: steady load, clients that leave, backends that come and go; nothing may accumulate.

`EXTPROC_SOAK_S` is how long, 600 s by default: `EXTPROC_SOAK_S=3600 make test-long ARGS=tests/faults`.
"""

import asyncio
import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pytest
from support.client_load import Load, chat
from support.fault_drill import open_descriptors, resident_bytes, scripted
from support.fault_table import write_soak
from support.patience import until
from support.process_stack import LocalStack

DURATION_S = float(os.environ.get("EXTPROC_SOAK_S", "600"))
WARM_UP_SHARE = 0.25
"""The first part of a run fills windows, caches and the allocator's pools."""
SAMPLE_EVERY_S, CHURN_EVERY_S, PACE_S = 1.0, 8.0, 0.1
MAX_GROWTH_BYTES = 4 << 20
"""Over the whole run, however long it is; what a leak of 1 KB a request makes in a minute."""


@dataclass
class Readings:
    """The sidecar's memory over time."""

    at_s: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def growth_per_s(self) -> float:
        """The slope of the memory, in bytes a second, after the warm-up."""
        at_s, resident = np.array(self.at_s), np.array(self.resident, float)
        is_warm = at_s >= at_s[0] + WARM_UP_SHARE * (at_s[-1] - at_s[0])
        return float(np.polyfit(at_s[is_warm], resident[is_warm], 1)[0])


async def leave_early(stack: LocalStack, load: Load, dice: random.Random) -> None:
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(dice.uniform(0.0, 0.06)):
                load.answers.append(await stack.ask(chat()))
        await asyncio.sleep(PACE_S)


async def ask_steadily(stack: LocalStack, load: Load) -> None:
    while True:
        load.answers.append(await stack.ask(chat()))
        await asyncio.sleep(PACE_S)


async def come_and_go(stack: LocalStack) -> None:
    names = list(stack.backends)
    while True:
        for leaving in (None, *names):
            stack.write_config([name for name in names if name != leaving])
            await asyncio.sleep(CHURN_EVERY_S)


@pytest.mark.long
def test_nothing_accumulates_under_steady_load_with_churn(stack: LocalStack) -> None:
    dice = random.Random(1)
    stack.stages["samples"] = {"path": str(stack.samples_path), "max_rows": 1000}

    async def scenario() -> None:
        async with scripted(stack, count=3):
            pid = stack.sidecar.pid
            assert pid is not None
            load, readings = Load(stack, 0), Readings()
            load.answers += await stack.ask_many(50, concurrency=8)
            await stack.until_idle()
            before = (open_descriptors(pid), await stack.metric("extproc_tasks"))
            tasks = [asyncio.create_task(ask_steadily(stack, load)) for _ in range(4)]
            tasks += [asyncio.create_task(leave_early(stack, load, dice)) for _ in range(2)]
            tasks.append(asyncio.create_task(come_and_go(stack)))
            ends_s = time.monotonic() + DURATION_S
            while time.monotonic() < ends_s:
                readings.at_s.append(time.monotonic())
                readings.resident.append(resident_bytes(pid))
                await asyncio.sleep(SAMPLE_EVERY_S)
                assert not any(task.done() for task in tasks), "one of the clients has failed"
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            stack.write_config()
            await stack.until_routable(3)
            await stack.until_idle()
            assert await stack.metric("extproc_open_streams") == 0
            assert not load.failures
            await until(lambda: open_descriptors(pid) <= before[0] + 2)
            after = (open_descriptors(pid), await stack.metric("extproc_tasks"))
            assert after[1] <= before[1] + 1
            growth = readings.growth_per_s()
            said = (
                f"{DURATION_S:.0f} s, {len(load.answers)} requests answered, a membership change every "
                f"{CHURN_EVERY_S:.0f} s: memory {growth * 3600 / 2**20:+.1f} MiB an hour from "
                f"{readings.resident[0] / 2**20:.0f} MiB, descriptors {before[0]} to {after[0]}, "
                f"tasks {before[1]:.0f} to {after[1]:.0f}, slots held 0, requests failed 0"
            )
            print(said)
            if "EXTPROC_FAULT_TABLE" in os.environ:
                write_soak(said)
            assert growth * DURATION_S < MAX_GROWTH_BYTES, said

    asyncio.run(scenario())
