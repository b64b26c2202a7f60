import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
from aiohttp import web

from extproc.fleet.view import CandidateFacts
from extproc.lab.load.completion import Reply, open_session
from extproc.lab.load.measured import Place, Sent, measured_sample
from extproc.lab.load.open_loop import DRAIN_S, OpenLoop
from extproc.lab.traffic.step_requests import DrawnRequests
from extproc.lab.traffic.workload import Fixed, Schedule, Workload
from extproc.outcomes.facts import Sample

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

IDLE = CandidateFacts(
    zone="low",
    num_running=0.0,
    load=0.0,
    num_waiting=0.0,
    kv_cache_fraction=0.0,
    own=0.0,
    foreign=0.0,
    scrape_age_s=0.1,
)


class OneServer:
    """A target of which nothing is known but its address."""

    model = "m"
    max_model_len = None
    requests_per_arrival = 1
    running = 0.0

    def __init__(self, url: str) -> None:
        self.url = url

    def place(self) -> Sequence[Place]:
        return [self]

    def end(self, sent: Sent, reply: Reply) -> Sample:
        return measured_sample(IDLE, "vllm-1", "profile", "direct", sent, reply)


def run(
    handler: Handler, schedule: Schedule, max_in_flight: int = 500, drain_s: float = DRAIN_S
) -> tuple[OpenLoop, list[Sample]]:
    async def scenario() -> tuple[OpenLoop, list[Sample]]:
        application = web.Application()
        application.router.add_post("/v1/completions", handler)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        samples: list[Sample] = []
        try:
            async with open_session() as session:
                loop = OpenLoop(
                    OneServer(f"http://127.0.0.1:{runner.addresses[0][1]}"),
                    session,
                    DrawnRequests(Workload(Fixed(4), Fixed(2))),
                    schedule,
                    max_in_flight,
                    samples.append,
                    np.random.default_rng(0),
                    asyncio.Event(),
                    drain_s,
                )
                await loop.run(lambda _: None)
        finally:
            await runner.cleanup()
        return loop, samples

    return asyncio.run(scenario())


async def good(_: web.Request) -> web.Response:
    return web.Response(body=b"data: {}\n\ndata: [DONE]\n\n")


async def bad(_: web.Request) -> web.Response:
    return web.Response(status=500)


async def hang(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


def test_all_of_the_schedule_is_sent_and_nothing_else() -> None:
    loop, samples = run(good, Schedule((20.0, 100.0), 0.3, 2))
    assert loop.figures.sent == len(samples) == 2 * (6 + 30)
    assert [(step.step.rate, step.sent, step.errors) for step in loop.figures.steps] == [
        (20.0, 6, 0),
        (100.0, 30, 0),
    ] * 2
    assert {sample.is_clean for sample in samples} == {True}
    assert {sample.input_tokens for sample in samples} == {4.0}
    assert loop.ended_by is None


def test_requests_that_do_not_end_after_a_pass_are_aborted() -> None:
    loop, samples = run(hang, Schedule((50.0,), 0.2, 2), drain_s=0.1)
    assert [step.aborted for step in loop.figures.steps] == [10, 10]
    assert {sample.failure for sample in samples} == {"client_left"}
    assert loop.figures.in_flight == 0


def test_arrivals_beyond_the_limit_are_not_sent_and_end_the_pass() -> None:
    loop, samples = run(hang, Schedule((50.0, 100.0), 0.2, 2), max_in_flight=3, drain_s=0.1)
    assert [
        (step.step.rate, step.sent, step.not_sent, step.max_in_flight) for step in loop.figures.steps
    ] == [(50.0, 3, 7, 3)] * 2
    assert len(samples) == 6


def test_a_server_that_only_fails_ends_the_run() -> None:
    loop, samples = run(bad, Schedule((400.0,), 2.0, 1))
    assert loop.ended_by == "50 requests in a row have failed, the last one by: server_error"
    assert 50 <= len(samples) < 800
    assert loop.figures.errors + loop.figures.steps[0].aborted == len(samples)


def test_requests_that_fail_all_at_once_are_one_failure() -> None:
    held: list[web.Request] = []

    async def crash_once(request: web.Request) -> web.StreamResponse:
        held.append(request)
        if len(held) > 80:
            return await good(request)
        if len(held) == 80:
            for other in held:
                if other.transport is not None:
                    other.transport.abort()
        return await hang(request)

    loop, samples = run(crash_once, Schedule((200.0,), 0.5, 1))
    assert loop.ended_by is None
    assert loop.figures.errors == 80
    assert len(samples) == 100
