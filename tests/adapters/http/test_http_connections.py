"""Connections to the sidecar's own port that ask nothing: closed in time, and never in the way of a probe."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.idle_sockets import idle, until_closed
from support.running_parts import Parts

from extproc.adapters.descriptors import MAX_HTTP
from extproc.adapters.http.http_connections import HttpTimes
from extproc.adapters.http.http_server import HttpServer

REQUEST = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


@asynccontextmanager
async def serving(parts: Parts, times: HttpTimes) -> AsyncIterator[int]:
    server = HttpServer("127.0.0.1:0", parts.runtime, times)
    try:
        yield await server.start()
    finally:
        await server.stop()


async def ask(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    try:
        async with asyncio.timeout(10):
            return await reader.readline()
    finally:
        writer.close()


@pytest.mark.parametrize("greeting", [b"", b"GET /metrics HTTP/1.1\r\nx: "], ids=["silent", "half a request"])
def test_a_connection_without_a_request_is_closed_in_time(
    parts: Parts, runner: asyncio.Runner, greeting: bytes
) -> None:
    async def scenario() -> None:
        async with serving(parts, HttpTimes(first_request_s=0.1)) as port, idle(port, 3, greeting) as opened:
            for connection in opened:
                assert await until_closed(connection) == b""

    runner.run(scenario())


def test_a_connection_that_has_asked_is_kept_for_longer_and_not_for_ever(
    parts: Parts, runner: asyncio.Runner
) -> None:
    async def scenario() -> None:
        times = HttpTimes(first_request_s=0.1, next_request_s=3.0)
        async with serving(parts, times) as port, idle(port, 1) as silent, idle(port, 1, REQUEST) as asking:
            await until_closed(silent[0])
            asking[0][1].write(REQUEST)
            received = await until_closed(asking[0], 20.0)
            assert received.count(b"HTTP/1.1 200 OK") == 2

    runner.run(scenario())


def test_a_reader_that_takes_no_answer_is_closed_in_time(parts: Parts, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        async with serving(parts, HttpTimes(next_request_s=0.1)) as port, idle(port, 1) as opened:
            _, writer = opened[0]
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # which typeshed hides
            writer.write(REQUEST.replace(b"/healthz", b"/metrics") * 2000)
            async with asyncio.timeout(20):
                while not writer.transport.is_closing():
                    writer.write(REQUEST)
                    await asyncio.sleep(0.05)

    runner.run(scenario())


def test_of_too_many_connections_those_heard_of_the_longest_ago_make_room(
    parts: Parts, runner: asyncio.Runner
) -> None:
    async def scenario() -> None:
        async with (
            serving(parts, HttpTimes()) as port,
            idle(port, MAX_HTTP) as first,
            idle(port, MAX_HTTP, REQUEST),
        ):
            assert await ask(port) == b"HTTP/1.1 200 OK\r\n"
            for connection in first:
                await until_closed(connection)

    runner.run(scenario())
