import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from support.build import a_core, an_endpoint, core_rules
from support.local_application import application_at
from support.patience import until

from extproc.adapters.files import file_watch
from extproc.adapters.vllm.asked_server import ScrapeResult
from extproc.adapters.vllm.scraper import Scraper
from extproc.config.environment import usual_api_key
from extproc.errors import ConfigError
from extproc.fleet.signals import ScrapeRule

RULE = ScrapeRule(busy_interval_s=0.02, idle_interval_s=0.02, models_interval_s=60.0)
GAUGES = "vllm:num_requests_running 3.0\nvllm:num_requests_waiting 1.0\n"
SECRET = "s3cret-k3y"


class Locked:
    """A server whose list of models is behind a key, and its metrics where `are_metrics_locked`."""

    def __init__(self) -> None:
        self.key = SECRET
        self.are_metrics_locked = True
        self.refused = 0
        self.last_seen = ""

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        if self.are_metrics_locked and not self._is_let_in(request):
            return web.Response(status=401)
        return web.Response(text=GAUGES)

    async def models(self, request: web.Request) -> web.StreamResponse:
        if not self._is_let_in(request):
            return web.Response(status=403)
        return web.Response(text='{"data": [{"id": "m"}]}')

    def _is_let_in(self, request: web.Request) -> bool:
        self.last_seen = request.headers.get("authorization", "")
        is_let_in = self.last_seen == f"Bearer {self.key}"
        self.refused += not is_let_in
        return is_let_in


@asynccontextmanager
async def asking(server: Locked, path: Path | None, usual: str | None = None) -> AsyncIterator[Scraper]:
    routes = [web.get("/metrics", server.metrics), web.get("/v1/models", server.models)]
    async with application_at(routes) as port:
        core = a_core([an_endpoint(port=port, model=None, api_key_path=path)], core_rules())
        scraper = Scraper(RULE, core, usual_key=usual)
        scraper.follow()
        try:
            yield scraper
        finally:
            await scraper.stop()


def put(path: Path, key: str) -> None:
    path.write_text(key)


def models_of(scraper: Scraper) -> frozenset[str] | None:
    return scraper._core.registry.members[0].models


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(file_watch, "INTERVAL_S", 0.02)
    path = tmp_path / "key"
    path.write_text(f"  {SECRET}\n")
    return path


def test_a_server_behind_a_key_is_known_at_its_first_answer(key_file: Path) -> None:
    async def scenario() -> None:
        server = Locked()
        async with asking(server, key_file) as scraper:
            await until(lambda: models_of(scraper) == frozenset({"m"}))
            assert scraper.results["vllm-1", ScrapeResult.OK] >= 1
            assert server.refused == 0

    asyncio.run(scenario())


def test_the_key_of_the_environment_is_for_servers_without_a_file(key_file: Path) -> None:
    async def scenario() -> None:
        server = Locked()
        async with asking(server, None, usual_api_key({"EXTPROC_API_KEY": f"{SECRET}\n"})) as scraper:
            await until(lambda: models_of(scraper) == frozenset({"m"}))
        async with asking(server, key_file, "another") as scraper:
            await until(lambda: models_of(scraper) == frozenset({"m"}))
        assert server.refused == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("key", ["two words", "é", "line\nbreak", "x" * 4097])
def test_a_key_that_no_header_can_have_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        usual_api_key({"EXTPROC_API_KEY": key})
    assert key not in str(refused.value)
    assert usual_api_key({}) is usual_api_key({"EXTPROC_API_KEY": " "}) is None


def test_a_key_that_changes_is_used_at_once_however_long_the_pause_was(key_file: Path) -> None:
    async def scenario() -> None:
        server = Locked()
        put(key_file, "an old key")
        async with asking(server, key_file) as scraper:
            await until(lambda: scraper.results["vllm-1", ScrapeResult.UNAUTHORIZED] >= 2)
            scraper._watches[scraper._core.registry.members[0]]._pace._useless = 16  # the pause is 60 s now
            await until(lambda: server.refused >= 5)
            put(key_file, SECRET)
            await until(lambda: models_of(scraper) == frozenset({"m"}))

    asyncio.run(scenario())


@pytest.mark.parametrize("are_metrics_locked", [True, False])
def test_a_key_that_is_refused_is_said_once_and_never_shown(
    key_file: Path, are_metrics_locked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario() -> None:
        server = Locked()
        server.key, server.are_metrics_locked = "another", are_metrics_locked
        async with asking(server, key_file) as scraper:
            await until(lambda: server.refused >= 5)
            put(key_file, server.key)
            await until(lambda: models_of(scraper) == frozenset({"m"}))

    asyncio.run(scenario())
    assert caplog.text.count("api_key_refused name=vllm-1 path=/v1/models") == 1
    assert caplog.text.count("api_key_refused name=vllm-1 path=/metrics") == are_metrics_locked
    assert "api_key_accepted name=vllm-1 path=/v1/models" in caplog.text
    assert "scrape_failed" not in caplog.text
    assert SECRET not in caplog.text
    assert "another" not in caplog.text


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff", None, b"k\r\nhost: other"])
def test_a_file_without_a_key_sends_none(
    key_file: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    if content is None:
        key_file.unlink()
    else:
        key_file.write_bytes(content)

    async def scenario() -> None:
        server = Locked()
        async with asking(server, key_file):
            await until(lambda: server.refused >= 1)
            assert server.last_seen == ""

    asyncio.run(scenario())
    assert caplog.text.count("api_key_file_refused") == 1


def test_a_backend_without_a_file_has_none_to_wait_for() -> None:
    async def scenario() -> None:
        server = Locked()
        server.are_metrics_locked = False
        async with asking(server, None) as scraper:
            await until(lambda: scraper.results["vllm-1", ScrapeResult.OK] >= 3)
            assert server.last_seen == ""

    asyncio.run(scenario())


def test_the_file_of_a_backend_may_become_another_one(key_file: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        server = Locked()
        put(key_file, "wrong")
        other = tmp_path / "other"
        put(other, SECRET)
        async with asking(server, key_file) as scraper:
            await until(lambda: server.refused >= 1)
            member = scraper._core.registry.members[0]
            scraper._core.set_members([replace(member.endpoint, api_key_path=other)], 0.0)
            scraper.follow()
            await until(lambda: models_of(scraper) == frozenset({"m"}))

    asyncio.run(scenario())
