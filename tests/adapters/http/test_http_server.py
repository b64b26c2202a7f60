import asyncio
import io
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from rich.console import Console
from support.running_parts import Parts

import extproc.adapters.http
from extproc.adapters.http.fleet_state import FleetState, TrafficSteps
from extproc.adapters.http.http_server import HttpServer
from extproc.commands.status_view import status_view
from extproc.errors import StackError

Get = Callable[[str], Awaitable[tuple[int, str, str]]]

LIVE_PAGE = Path(extproc.adapters.http.__file__).with_name("live_page.html")


@asynccontextmanager
async def serving(parts: Parts, more: Iterable[Collector] = ()) -> AsyncIterator[Get]:
    """A GET that gives status, content type and text."""
    server = HttpServer("127.0.0.1:0", parts.runtime, more=more)
    port = await server.start()

    async def get(path: str) -> tuple[int, str, str]:
        async with session.get(path) as response:
            return response.status, response.headers["content-type"], await response.text()

    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        try:
            yield get
        finally:
            await server.stop()


def test_readiness_follows_the_grpc_server_and_health_does_not(parts: Parts, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        async with serving(parts) as get:
            statuses = [((await get("/healthz"))[0], (await get("/readyz"))[0])]
            await parts.server.start()
            statuses.append(((await get("/healthz"))[0], (await get("/readyz"))[0]))
            await parts.server.drain()
            statuses.append(((await get("/healthz"))[0], (await get("/readyz"))[0]))
            assert statuses == [(200, 503), (200, 200), (200, 503)]

    runner.run(scenario())


def test_metrics_are_in_prometheus_text_format(parts: Parts, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        async with serving(parts) as get:
            status, content_type, text = await get("/metrics")
            assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
            metrics = list(text_string_to_metric_families(text))
            assert len(metrics) > 10
            assert all(metric.name.startswith("extproc_") for metric in metrics)

    runner.run(scenario())


def test_metrics_and_state_are_those_of_the_moment(parts: Parts, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        async with serving(parts) as get:
            parts.place()
            assert '"least_load":1' in (await get("/v1/state"))[2]
            parts.place()
            assert '"least_load":2' in (await get("/v1/state"))[2]
            counted = 'extproc_decisions_total{layer="least_load",reason="low_zone"} 2.0'
            assert counted in (await get("/metrics"))[2]

    runner.run(scenario())


def test_the_state_is_what_the_status_command_shows(parts: Parts, runner: asyncio.Runner) -> None:
    async def scenario() -> str:
        async with serving(parts) as get:
            status, content_type, text = await get("/v1/state")
            assert (status, content_type) == (200, "application/json")
            return text

    parts.offer_shipped_model()
    parts.scrape(running=3.0, waiting=0.0, kv_cache_fraction=0.01)
    state = msgspec.json.decode(runner.run(scenario()), type=FleetState)
    console = Console(file=io.StringIO(), record=True, width=100)
    console.print(status_view(state))
    shown = console.export_text()
    assert [backend.name for backend in state.backends] == ["vllm-1", "vllm-2"]
    assert all(backend.address in shown for backend in state.backends)
    assert state.model is not None
    assert state.model.version in shown


def test_the_root_is_the_live_page(parts: Parts, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        async with serving(parts) as get:
            assert await get("/") == (200, "text/html; charset=utf-8", LIVE_PAGE.read_text())

    runner.run(scenario())


def test_the_history_grows_by_a_step_at_a_time(parts: Parts, runner: asyncio.Runner) -> None:
    async def scenario() -> list[TrafficSteps]:
        found = []
        async with serving(parts) as get:
            for _ in range(2):
                status, content_type, text = await get("/v1/history")
                assert (status, content_type) == (200, "application/json")
                found.append(msgspec.json.decode(text, type=TrafficSteps))
                parts.place()
                traffic = parts.runtime.traffic
                traffic.history.end_step(traffic.read(parts.started_s + 5.0))
        return found

    first, second = runner.run(scenario())
    assert first.steps == []
    (step,) = second.steps
    assert (step.seconds, step.decisions) == (5.0, {"least_load.low_zone": 1})
    assert second.ended_s_ago < first.ended_s_ago


def test_other_paths_are_not_found(parts: Parts, runner: asyncio.Runner) -> None:
    async def scenario() -> list[int]:
        async with serving(parts) as get:
            return [(await get(path))[0] for path in ("/v1", "/metrics/", "/live_page.html", "/../config.py")]

    assert runner.run(scenario()) == [404] * 4


def test_requests_that_are_no_http_are_reported_in_one_line(
    parts: Parts, runner: asyncio.Runner, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        server = HttpServer("127.0.0.1:0", parts.runtime)
        port = await server.start()
        try:
            for _ in range(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /metrics HTTP/1.1\r\nno header\r\n\r\n")
                assert b" 400 " in await reader.readline()
                writer.close()
        finally:
            await server.stop()

    runner.run(scenario())
    (record,) = caplog.records
    assert record.getMessage().startswith("http_request_refused error=")
    assert record.exc_info is None


def test_a_taken_address_is_a_clear_error(parts: Parts, runner: asyncio.Runner) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StackError, match=rf"HTTP server: cannot listen on {address}"):
            runner.run(HttpServer(address, parts.runtime).start())


class Gauges(Collector):
    """Some metrics, and how often something else was done before each of them."""

    def __init__(self) -> None:
        self.turns = 0
        self.seen: list[int] = []

    def collect(self) -> Iterator[Metric]:
        for number in range(5):
            self.seen.append(self.turns)
            yield GaugeMetricFamily(f"gauge_{number}", "A gauge", value=number)

    def turn(self) -> None:
        self.turns += 1
        if len(self.seen) < 5:
            asyncio.get_running_loop().call_soon(self.turn)


def test_a_page_of_metrics_lets_others_have_their_turn(parts: Parts, runner: asyncio.Runner) -> None:
    gauges = Gauges()

    async def scenario() -> None:
        async with serving(parts, (gauges,)) as get:
            gauges.turn()
            page = (await get("/metrics"))[2]
            assert all(f"gauge_{number} {number}.0" in page for number in range(5))
            assert len(set(gauges.seen)) == 5

    runner.run(scenario())
