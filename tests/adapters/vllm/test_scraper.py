import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from support.build import a_core, an_endpoint, core_rules
from support.local_application import application_at
from support.patience import until

from extproc.adapters.vllm.asked_server import ScrapeResult
from extproc.adapters.vllm.scraper import Scraper
from extproc.adapters.vllm.served_models import (
    MAX_MODELS,
    MAX_NAME,
    ServedModels,
    read_models,
)
from extproc.fleet.backend import Backend
from extproc.fleet.registry import Registry
from extproc.fleet.signals import ScrapeRule
from extproc.request.body_facts import InputSize

CONFIG = ScrapeRule(
    busy_interval_s=0.02, idle_interval_s=0.02, timeout_s=0.3, models_interval_s=0.05, max_response_bytes=4096
)
GAUGES = 'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_waiting{engine="0"} 1.0\n'

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def good(_: web.Request) -> web.StreamResponse:
    return web.Response(text=GAUGES)


class Setup:
    """A scraper that follows one backend on `port`."""

    def __init__(self, port: int, config: ScrapeRule = CONFIG, max_per_s: float = 1000.0) -> None:
        self.asked_for_models = 0
        self.core = a_core([an_endpoint(port=port, model=None)], core_rules(settle_s=1.0))
        self.scraper = Scraper(config, self.core, max_per_s=max_per_s)

    @property
    def registry(self) -> Registry:
        return self.core.registry

    @property
    def backend(self) -> Backend:
        return self.registry.members[0]

    async def until_result(self, result: ScrapeResult, count: int = 1) -> None:
        await until(lambda: self.scraper.results["vllm-1", result] >= count)


@asynccontextmanager
async def scraping(
    metrics: Handler,
    models: str = '{"data": [{"id": "m"}]}',
    elsewhere: Handler | None = None,
    moved: Handler | None = None,
    max_per_s: float = 1000.0,
    **settings: float,
) -> AsyncIterator[Setup]:
    async def serve_models(_: web.Request) -> web.StreamResponse:
        setup.asked_for_models += 1
        return web.Response(text=models)

    routes = [web.get("/metrics", metrics), web.get("/v1/models", serve_models)]
    if elsewhere is not None:
        routes.append(web.get("/prometheus/metrics", elsewhere))
    if moved is not None:
        routes.append(web.get("/metrics/", moved))
    async with application_at(routes) as port:
        setup = Setup(port, replace(CONFIG, **settings), max_per_s)
        setup.scraper.follow()
        try:
            yield setup
        finally:
            await setup.scraper.stop()


def test_signals_and_models_reach_the_fleet() -> None:
    async def scenario() -> None:
        async with scraping(good) as setup:
            await until(lambda: setup.registry.candidates("m") is not None)
            await until(lambda: setup.backend.models is not None)
            assert setup.backend.models == frozenset({"m"})
            backend = setup.backend
            assert (backend.running, backend.waiting) == (3.0, 1.0)

    asyncio.run(scenario())


def test_busy_backends_are_asked_no_more_often_than_the_budget_allows() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with scraping(good, max_per_s=20.0) as setup:
            await setup.until_result(ScrapeResult.OK, 3)
            begun_s, before = loop.time(), setup.scraper.results["vllm-1", ScrapeResult.OK]
            await setup.until_result(ScrapeResult.OK, before + 10)
            assert loop.time() - begun_s >= 9 / 20.0, "without a budget it takes 0.2 s"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ("<html>hello</html>", 200, ScrapeResult.INVALID),
        (GAUGES.replace("3.0", "NaN"), 200, ScrapeResult.INVALID),
        (GAUGES.replace("3.0", "-3"), 200, ScrapeResult.INVALID),
        (GAUGES[:20], 200, ScrapeResult.INVALID),
        ("", 200, ScrapeResult.INVALID),
        (GAUGES, 500, ScrapeResult.BAD_STATUS),
        (GAUGES + "#" * 10_000, 200, ScrapeResult.TOO_LARGE),
    ],
)
def test_metrics_that_are_not_believed_change_nothing_and_the_models_are_known_all_the_same(
    body: str, status: int, expected: ScrapeResult
) -> None:
    async def bad(_: web.Request) -> web.StreamResponse:
        return web.Response(text=body, status=status)

    async def scenario() -> None:
        async with scraping(bad) as setup:
            await setup.until_result(expected, count=2)
            assert setup.backend.scraped_at_s == -np.inf
            await until(lambda: setup.backend.models == frozenset({"m"}))

    asyncio.run(scenario())


def test_metrics_are_found_where_tensorrt_llm_has_them_and_at_the_usual_path_again_later() -> None:
    is_elsewhere = True

    async def page(request: web.Request) -> web.StreamResponse:
        has_gauges = (request.path == "/prometheus/metrics") is is_elsewhere
        return web.Response(text=GAUGES if has_gauges else "[]")

    async def scenario() -> None:
        nonlocal is_elsewhere
        async with scraping(page, elsewhere=page) as setup:
            await setup.until_result(ScrapeResult.OK, count=3)
            is_elsewhere = False
            await setup.until_result(ScrapeResult.OK, count=6)
            assert set(setup.scraper.results) == {("vllm-1", ScrapeResult.OK)}

    asyncio.run(scenario())


def test_metrics_that_were_moved_and_are_back_are_found_again() -> None:
    is_moved = True

    async def usual(_: web.Request) -> web.StreamResponse:
        if is_moved:
            raise web.HTTPTemporaryRedirect("/metrics/")
        return web.Response(text=GAUGES)

    async def there(_: web.Request) -> web.StreamResponse:
        return web.Response(text=GAUGES if is_moved else '{"another": "page"}')

    async def scenario() -> None:
        nonlocal is_moved
        async with scraping(usual, moved=there) as setup:
            await setup.until_result(ScrapeResult.OK, count=2)
            is_moved = False
            await setup.until_result(ScrapeResult.INVALID)
            await setup.until_result(ScrapeResult.OK, count=5)

    asyncio.run(scenario())


def test_a_list_in_doubt_is_asked_for_soon() -> None:
    async def scenario() -> None:
        async with scraping(good, models_interval_s=3600.0) as setup:
            await until(lambda: setup.backend.models is not None)
            setup.backend.models = frozenset({"gone"})
            setup.backend.is_list_doubted = True
            await until(lambda: setup.backend.models == frozenset({"m"}))
            assert setup.asked_for_models == 2

    asyncio.run(scenario())


def test_a_server_whose_metrics_never_come_is_asked_again_and_for_its_models() -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    async def scenario() -> None:
        async with scraping(hang, timeout_s=0.1) as setup:
            await setup.until_result(ScrapeResult.HUNG, count=2)
            assert setup.backend.models == frozenset({"m"})

    asyncio.run(scenario())


def test_an_endless_answer_is_cut_off() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"# nothing\n" * 100)

    async def scenario() -> None:
        async with scraping(endless) as setup:
            await setup.until_result(ScrapeResult.TOO_LARGE, count=2)

    asyncio.run(scenario())


def test_refused_connections_take_the_backend_out() -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
            setup = Setup(taken.getsockname()[1])
            setup.scraper.follow()
            await setup.until_result(ScrapeResult.REFUSED, count=3)
            assert setup.backend.breaker.is_tripped
            await setup.scraper.stop()

    asyncio.run(scenario())


def test_a_member_that_left_is_asked_no_more() -> None:
    async def scenario() -> None:
        async with scraping(good) as setup:
            await setup.until_result(ScrapeResult.OK)
            setup.registry.apply([an_endpoint(2, port=1)], 10.0)
            setup.registry.advance(20.0)
            setup.scraper.follow()
            assert ("vllm-1", ScrapeResult.OK) not in setup.scraper.results
            await until(lambda: setup.scraper.results["vllm-2", ScrapeResult.REFUSED] >= 3)
            assert setup.scraper.results["vllm-1", ScrapeResult.OK] == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("models", ["[]", '{"data": []}', '{"data": [{"id": 5}]}', "no", "[" * 100_000])
def test_a_list_of_models_that_is_none_leaves_them_unknown(models: str) -> None:
    async def scenario() -> None:
        async with scraping(good, models) as setup:
            await setup.until_result(ScrapeResult.OK, count=4)
            assert setup.backend.models is None

    asyncio.run(scenario())


def body(*ids: Any) -> bytes:
    return json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in ids]}).encode()


def test_a_model_and_its_adapters_are_read() -> None:
    assert read_models(body("llama", "sql-lora", "模型")) == ServedModels(
        frozenset({"llama", "sql-lora", "模型"})
    )


def test_contexts_are_read_where_their_lengths_can_be() -> None:
    lengths = (4096, None, True, -1, 0, 1.5, "9", 10**30, [])
    entries = [{"id": str(number), "max_model_len": length} for number, length in enumerate(lengths)]
    models = read_models(json.dumps({"data": entries}).encode())
    assert models is not None
    assert models.context_lengths == {"0": 4096}


def test_a_prompt_is_estimated_up_to_the_context_that_the_server_tells() -> None:
    async def scenario() -> None:
        listed = '{"data": [{"id": "m", "max_model_len": 2048}]}'
        async with scraping(good, listed) as setup:
            million = InputSize(text_bytes=1 << 20)
            await until(lambda: setup.core.ratios.estimate("m", million) == 2048)

    asyncio.run(scenario())


def test_a_list_may_be_as_long_as_the_limits_allow() -> None:
    names = [f"{number:0{MAX_NAME}}" for number in range(MAX_MODELS)]
    assert read_models(body(*names)) == ServedModels(frozenset(names))


def test_of_more_adapters_than_are_taken_the_first_are() -> None:
    names = [f"adapter-{number}" for number in range(MAX_MODELS + 2)]
    assert read_models(body(*names)) == ServedModels(frozenset(names[:MAX_MODELS]), left_out=2)


def test_a_name_that_is_too_long_costs_no_other_its_place() -> None:
    assert read_models(body("llama", "x" * (MAX_NAME + 1), "llama")) == ServedModels(
        frozenset({"llama"}), left_out=1
    )


def test_adapters_that_are_left_out_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    many = body(*(f"adapter-{number}" for number in range(MAX_MODELS + 1)))

    async def scenario() -> None:
        async with scraping(good, many.decode(), max_response_bytes=1 << 20) as setup:
            await until(lambda: setup.backend.models is not None)
            await setup.until_result(ScrapeResult.OK, count=10)
            assert setup.backend.models is not None
            assert len(setup.backend.models) == MAX_MODELS

    asyncio.run(scenario())
    assert caplog.text.count("models_left_out name=vllm-1") == 1


def test_a_list_that_is_none_is_asked_for_less_and_less_often() -> None:
    async def scenario() -> None:
        async with scraping(good, "no list", models_interval_s=60.0) as setup:
            await setup.until_result(ScrapeResult.OK, count=40)
            assert 1 < setup.asked_for_models <= 7

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"no", b"[]", b"{}", b'{"data": {}}', b'{"data": null}', b'{"data": ["llama"]}', b"\xff\xfe"),
        *(b'{"data": [{"name": "llama"}]}', b'{"data": [{"id": "a"}]} x', b'{"data": [{"id": "\xff"}]}'),
        *(body(), body(5), body(None), body("llama", 5)),
        *(body("x" * (MAX_NAME + 1)), b"[" * 100_000),
    ],
)
def test_a_list_of_impossible_models_is_not_believed(text: bytes) -> None:
    assert read_models(text) is None


@given(st.binary() | st.binary().map(lambda part: b'{"data": [{"id": "' + part + b'"}]}'))
def test_no_answer_can_raise(text: bytes) -> None:
    models = read_models(text)
    assert models is None or all(isinstance(name, str) for name in models.names)
