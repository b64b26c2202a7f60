"""Half as many requests again as the backends can answer, for a while: what the queue makes of it.

What the backends can answer is measured before and after, on the same stack: by as many clients as there are
places, none of whom waits.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from integration.local_stack import Answer, Load, LocalStack, chat, running

OVERLOAD = 1.5
MAX_ACTIVE = 4
MAX_WAIT_S = 1.0
"""One of the histogram's bounds, so that it tells whether anybody who was let in had waited for longer."""
BODY = chat(max_tokens=8)
BACKENDS = ("vllm-1", "vllm-2")

TENANTS = (("modest", 0.27), ("eager", 0.27), ("greedy", 0.46))
"""Who sends which share of the requests; two ninths would be a third of what can be answered."""
TENANT, PRIORITY = "x-extproc-tenant", "x-extproc-priority"


@dataclass(frozen=True, slots=True)
class Sent:
    """One request of the overload: what it was sent with, when (on the loop's clock), and what came of it."""

    label: str
    sent_s: float
    ended_s: float
    answer: Answer


@pytest.fixture
def full_stack(stack: LocalStack) -> LocalStack:
    """Two backends that are busy with as many requests as they may have."""
    for name in BACKENDS:
        stack.start_sim(name, "--speed", "2", "--max-num-seqs", str(MAX_ACTIVE))
    stack.stages["guard"] = {"max_active": MAX_ACTIVE}
    queue = {
        "max_waiting": 60,
        "max_wait_s": MAX_WAIT_S,
        "min_priority": 0,
        "max_priority": 1,
        "tenant_header": TENANT,
    }
    stack.stages["admission"] = {"mode": "queue", "queue": queue}
    return stack


async def capacity_per_s(stack: LocalStack, requests: int) -> float:
    loop = asyncio.get_running_loop()
    async with Load(stack, MAX_ACTIVE * len(BACKENDS), BODY) as load:
        await load.until(MAX_ACTIVE * len(BACKENDS))
        started_s = loop.time()
        await load.until(requests)
        took_s = loop.time() - started_s
    return requests / took_s


async def overload(
    stack: LocalStack, rate_per_s: float, requests: int, header: str, shares: Sequence[tuple[str, float]]
) -> list[Sent]:
    """Poisson arrivals, each with one of the header's values, drawn by their shares."""
    loop = asyncio.get_running_loop()
    rng = np.random.default_rng(1)
    at_s = loop.time() + np.cumsum(rng.exponential(1 / rate_per_s, requests))
    labels = rng.choice([label for label, _ in shares], requests, p=[share for _, share in shares])

    async def one(sent_s: float, label: str) -> Sent:
        await asyncio.sleep(sent_s - loop.time())
        answer = await stack.ask(BODY, headers={header: label})
        return Sent(label, sent_s, loop.time(), answer)

    return await asyncio.gather(*map(one, at_s.tolist(), labels.tolist()))


def steady(sent: Sequence[Sent]) -> tuple[list[Sent], float]:
    """What ended while requests arrived, without the time until the line was long; and how long that was."""
    first_s, last_s = sent[0].sent_s, sent[-1].sent_s
    from_s = first_s + 2 * MAX_WAIT_S
    return [one for one in sent if from_s <= one.ended_s < last_s], last_s - from_s


def typical_ttft_s(sent: Sequence[Sent]) -> float:
    return float(np.median([one.answer.ttft_s for one in sent]))


async def metric(stack: LocalStack, name: str) -> float:
    async with stack.session.get(f"http://127.0.0.1:{stack.http_port}/metrics") as response:
        lines = (await response.text()).splitlines()
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name + " "))


async def assert_only_served_or_refused(stack: LocalStack, sent: Sequence[Sent]) -> None:
    """By the router, in time; and nothing remains."""
    for one in sent:
        reason = one.answer.headers.get("x-extproc-reason")
        assert one.answer.is_complete or reason in {"queue_timeout", "queue_full"}, one.answer
        assert one.answer.backend in BACKENDS or one.answer.status == 503, "nobody is passed through"
    await stack.until_idle()
    counted = await metric(stack, "extproc_queue_wait_seconds_count")
    assert await metric(stack, f'extproc_queue_wait_seconds_bucket{{le="{MAX_WAIT_S}"}}') == counted > 0
    assert (await stack.state())["queue"]["waiting"] == 0


@dataclass(frozen=True, slots=True)
class Size:
    """How many requests measure the capacity, and make the overload; `used` of the capacity has to be.

    Where a stall of the machine by a second is a fifth of the test, less is asked.
    """

    calm: int
    overload: int
    used: float


SIZES = [
    pytest.param(Size(80, 400, used=0.8), id="short"),
    pytest.param(Size(300, 2000, used=0.95), id="long", marks=pytest.mark.long),
]


@pytest.mark.parametrize("size", SIZES)
def test_in_overload_capacity_is_used_and_tenants_get_equal_shares(
    full_stack: LocalStack, size: Size
) -> None:
    async def scenario() -> None:
        async with running(full_stack) as stack:
            before_per_s = await capacity_per_s(stack, size.calm)
            sent = await overload(stack, OVERLOAD * before_per_s, size.overload, TENANT, TENANTS)
            await assert_only_served_or_refused(stack, sent)
            after_per_s = await capacity_per_s(stack, size.calm)
            counted, took_s = steady(sent)
            served = Counter(one.label for one in counted if one.answer.status == 200)
            assert served.total() / took_s >= size.used * min(before_per_s, after_per_s)
            for tenant, _ in TENANTS:
                assert served[tenant] == pytest.approx(served.total() / len(TENANTS), rel=0.1)

    asyncio.run(scenario())


@pytest.mark.parametrize("size", SIZES)
def test_in_overload_a_high_priority_is_served_and_the_rest_shares_what_is_left(
    full_stack: LocalStack, size: Size
) -> None:
    async def scenario() -> None:
        async with running(full_stack) as stack:
            rate_per_s = OVERLOAD * await capacity_per_s(stack, size.calm)
            sent = await overload(stack, rate_per_s, size.overload, PRIORITY, (("1", 0.3), ("0", 0.7)))
            await assert_only_served_or_refused(stack, sent)
            high = [one for one in sent if one.label == "1"]
            low = [one for one in sent if one.label == "0"]
            served_high, served_low = (
                [one for one in some if one.answer.status == 200] for some in (high, low)
            )
            # Not all of the high ones, and not the slowest: who is there while the machine stalls is late.
            assert len(served_high) >= 0.95 * len(high)
            assert 0 < len(served_low) < 0.8 * len(low)
            assert typical_ttft_s(served_high) < 0.5 * typical_ttft_s(served_low)

    asyncio.run(scenario())
