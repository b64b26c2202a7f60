import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import web
from support.fleet_states import backend_status, fleet_state

from extproc.errors import ProfileError
from extproc.lab.load.completion import Reply, open_session
from extproc.lab.load.measured import BACKEND_HEADER, LAYER_HEADER, Sent
from extproc.lab.load.profiled_servers import ServedModel
from extproc.lab.load.stack_target import StackTarget, open_stack

STATE = fleet_state(
    backend_status(name="idle", running=None, waiting=None, kv_cache_fraction=None, scrape_age_s=None),
    backend_status(name="busy", own=5, foreign=2.0, load=7.0, running=6.0, waiting=1.0, zone="medium"),
)
SENT = Sent(at_s=1_700_000_000.0, model="m", prompt_tokens=64, output_tokens=16, body_bytes=300)


@asynccontextmanager
async def target_of(document: bytes) -> AsyncIterator[StackTarget]:
    """The target of a stack whose sidecar always says `document`."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=document)

    application = web.Application()
    application.add_routes([web.get("/v1/state", answer)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with open_session() as session, open_stack(session, url, url, ServedModel("m", None)) as target:
            yield target
    finally:
        await runner.cleanup()


def test_sample_has_what_the_state_said_of_the_backend_that_answered() -> None:
    async def scenario() -> None:
        async with target_of(msgspec.json.encode(STATE)) as target:
            assert target.running == 6.0, "one that was never scraped counts as idle"
            (place,) = target.place()
            reply = Reply(200, {BACKEND_HEADER: "busy", LAYER_HEADER: "predict"}, ttft_s=0.5)
            sample = place.end(SENT, reply)
            assert sample is not None
            assert (sample.backend, sample.layer, sample.zone) == ("busy", "predict", "medium")
            assert (sample.own, sample.foreign, sample.load) == (5.0, 2.0, 7.0)
            assert (sample.num_running, sample.num_waiting, sample.kv_cache_fraction) == (6.5, 1.0, 0.314)
            assert sample.scrape_age_s is not None
            assert sample.scrape_age_s >= 0.04

    asyncio.run(scenario())


def test_sample_of_a_backend_that_was_never_scraped_has_no_age() -> None:
    async def scenario() -> None:
        async with target_of(msgspec.json.encode(STATE)) as target:
            (place,) = target.place()
            sample = place.end(SENT, Reply(200, {BACKEND_HEADER: "idle", LAYER_HEADER: "least_load"}))
            assert sample is not None
            assert (sample.num_waiting, sample.kv_cache_fraction, sample.scrape_age_s) == (0.0, 0.0, None)

    asyncio.run(scenario())


@pytest.mark.parametrize("headers", [{}, {BACKEND_HEADER: "unknown"}, {LAYER_HEADER: "reject"}])
def test_request_that_no_known_backend_answered_is_no_sample(headers: dict[str, str]) -> None:
    async def scenario() -> None:
        async with target_of(msgspec.json.encode(STATE)) as target:
            (place,) = target.place()
            assert place.end(SENT, Reply(200, headers)) is None

    asyncio.run(scenario())


@pytest.mark.parametrize("document", [b"", b"<html>", b"[]", b"{}", b'"\xff"'])
def test_document_that_is_no_state_is_a_clear_error(document: bytes) -> None:
    async def scenario() -> None:
        async with target_of(document):
            pass

    with pytest.raises(ProfileError, match=r"no sidecar's state at http://127\.0\.0\.1"):
        asyncio.run(scenario())
