"""More than the backends can answer, for a while: what the queue makes of it.

The long tests ask half as much again, whatever becomes of it. What the backends can answer they measure
before and after, on the same stack: by as many clients as there are places, none of whom waits. A machine
that stalls spoils such figures. So the short tests have many clients, each of whom waits for its answer, so
that there is a line all the time, and assert nothing of time.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import numpy as np
import pytest
from support.client_load import Answer, Load, chat
from support.process_stack import LocalStack, running

OVERLOAD = 1.5
MAX_ACTIVE = 4
MAX_WAIT_S = 1.0
"""One of the histogram's bounds, so that it tells whether anybody who was let in had waited for longer."""
BODY = chat(max_tokens=8)
FAST = 20.0
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


def two_backends(stack: LocalStack, **limits: float) -> LocalStack:
    """They are busy with as many requests as they may have; the guard limits no wait."""
    for name in BACKENDS:
        stack.start_sim(name, "--speed", "2", "--max-num-seqs", str(MAX_ACTIVE))
    stack.stages["guard"] = {"max_active": MAX_ACTIVE, "max_predicted_ttft_s": 600.0}
    queue = {
        **limits,
        "min_priority": 0,
        "max_priority": 1,
        "tenant_header": TENANT,
    }
    stack.stages["admission"] = {"mode": "queue", "queue": queue}
    return stack


@pytest.fixture
def full_stack(stack: LocalStack) -> LocalStack:
    """Who waits for too long is refused."""
    return two_backends(stack, max_waiting=60, max_wait_s=MAX_WAIT_S)


@pytest.fixture
def patient_stack(stack: LocalStack) -> LocalStack:
    """Everybody may wait."""
    return two_backends(stack, max_waiting=100, max_wait_s=300.0)


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


async def assert_only_served_or_refused(stack: LocalStack, answers: Iterable[Answer]) -> None:
    """By the router; and nothing remains."""
    for answer in answers:
        reason = answer.headers.get("x-extproc-reason")
        assert answer.is_complete or reason in {"queue_timeout", "queue_full"}, answer
        assert answer.backend in BACKENDS or answer.status == 503, "nobody is passed through"
    await stack.until_idle()
    assert (await stack.state())["queue"]["waiting"] == 0


async def assert_no_request_waited_for_longer(stack: LocalStack) -> None:
    counted = await stack.metric("extproc_queue_wait_seconds_count")
    bucket = rf'extproc_queue_wait_seconds_bucket\{{le="{MAX_WAIT_S}"\}}'
    assert await stack.metric(bucket) == counted > 0


@asynccontextmanager
async def clients(
    stack: LocalStack, header: str, counts: Mapping[str, int]
) -> AsyncIterator[dict[str, Load]]:
    """This many clients by the header's value, all of whom are there; in the end nobody has been refused."""
    async with AsyncExitStack() as exits:
        loads = {
            label: await exits.enter_async_context(Load(stack, count, BODY, headers={header: label}))
            for label, count in counts.items()
        }
        places = MAX_ACTIVE * len(BACKENDS)
        await stack.until(lambda state: state["queue"]["waiting"] > sum(counts.values()) - 2 * places)
        yield loads
        await stack.change_speed(FAST)
    for load in loads.values():
        assert not load.failures
        await assert_only_served_or_refused(stack, load.answers)


def test_while_requests_wait_the_limit_is_used_up_and_tenants_get_equal_shares(
    patient_stack: LocalStack,
) -> None:
    async def scenario() -> None:
        counts = {"modest": 24, "eager": 24, "greedy": 48}
        async with running(patient_stack) as stack, clients(stack, TENANT, counts) as loads:
            before = {tenant: len(load.answers) for tenant, load in loads.items()}
            served: Counter[str] = Counter()
            own = []
            while served.total() < 150:
                state = await stack.state()
                if state["queue"]["waiting"]:
                    own += [backend["own"] for backend in state["backends"]]
                served = Counter(
                    {tenant: len(load.answers) - before[tenant] for tenant, load in loads.items()}
                )
            assert max(own) == MAX_ACTIVE
            assert np.mean(own) > 0.95 * MAX_ACTIVE
            for tenant in counts:
                assert served[tenant] == pytest.approx(served.total() / len(counts), rel=0.2)

    asyncio.run(scenario())


def test_a_high_priority_is_let_in_before_a_low_one(patient_stack: LocalStack) -> None:
    async def scenario() -> None:
        counts = {"0": 40, "1": MAX_ACTIVE}
        async with running(patient_stack) as stack, clients(stack, PRIORITY, counts) as loads:
            await loads["1"].until(60)
            await loads["0"].until(60)
            low, high = ([answer.ttft_s for answer in loads[label].answers] for label in counts)
            assert np.median(high) < 0.5 * np.median(low)

    asyncio.run(scenario())


CALM, REQUESTS = 300, 2000
"""For each measurement of the capacity, and in overload."""


@pytest.mark.long
def test_in_overload_capacity_is_used_and_tenants_get_equal_shares(
    full_stack: LocalStack,
) -> None:
    async def scenario() -> None:
        async with running(full_stack) as stack:
            before_per_s = await capacity_per_s(stack, CALM)
            sent = await overload(stack, OVERLOAD * before_per_s, REQUESTS, TENANT, TENANTS)
            await assert_only_served_or_refused(stack, [one.answer for one in sent])
            await assert_no_request_waited_for_longer(stack)
            after_per_s = await capacity_per_s(stack, CALM)
            counted, took_s = steady(sent)
            served = Counter(one.label for one in counted if one.answer.status == 200)
            assert served.total() / took_s >= 0.95 * min(before_per_s, after_per_s)
            for tenant, _ in TENANTS:
                assert served[tenant] == pytest.approx(served.total() / len(TENANTS), rel=0.1)

    asyncio.run(scenario())


@pytest.mark.long
def test_in_overload_a_high_priority_is_served_and_the_rest_shares_what_is_left(
    full_stack: LocalStack,
) -> None:
    async def scenario() -> None:
        async with running(full_stack) as stack:
            rate_per_s = OVERLOAD * await capacity_per_s(stack, CALM)
            sent = await overload(stack, rate_per_s, REQUESTS, PRIORITY, (("1", 0.3), ("0", 0.7)))
            await assert_only_served_or_refused(stack, [one.answer for one in sent])
            await assert_no_request_waited_for_longer(stack)
            high = [one for one in sent if one.label == "1"]
            low = [one for one in sent if one.label == "0"]
            assert {one.answer.status for one in high} == {200}
            assert Counter(one.answer.status for one in low)[503] > 0.2 * len(low)
            assert any(one.answer.status == 200 for one in low)
            slow_s = np.quantile([one.answer.ttft_s for one in high], 0.95)
            assert slow_s < np.median([one.answer.ttft_s for one in low if one.answer.status == 200])

    asyncio.run(scenario())
