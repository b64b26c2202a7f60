import asyncio
import gc
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from extproc.adapters.vllm.kept_connection import AnswerTooLargeError, HttpAnswer, KeptConnection

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Raw TCP on a free port; counts the connections that were made to it."""

    def __init__(self, behave: Behave, port: int, client: KeptConnection) -> None:
        self.behave, self.port, self.client = behave, port, client
        self.connections = 0


@asynccontextmanager
async def serving(
    behave: Behave, *, timeout_s: float = 5.0, max_body_bytes: int = 1000
) -> AsyncIterator[Server]:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            await server.behave(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    client = KeptConnection("127.0.0.1", port, timeout_s, max_body_bytes)
    server = Server(behave, port, client)
    try:
        yield server
    finally:
        client.close()
        listener.close()


def answering(*answers: bytes, then_close: bool = False) -> Behave:
    """Each request on a connection gets the next answer; then the connection stays, or is closed."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        if not then_close:
            await reader.read()

    return behave


def got(behave: Behave, **settings: float) -> HttpAnswer:
    async def scenario() -> HttpAnswer:
        async with serving(behave, **settings) as server:  # type: ignore[arg-type]  # int and float mixed
            return await server.client.get("/metrics")

    return asyncio.run(scenario())


def test_one_connection_serves_many_requests() -> None:
    async def scenario() -> None:
        async with serving(answering(*[OK] * 5)) as server:
            for _ in range(5):
                assert await server.client.get("/metrics") == HttpAnswer(200, b"ok")
            assert server.connections == 1

    asyncio.run(scenario())


def test_a_connection_that_the_server_gave_up_is_replaced_without_an_error() -> None:
    async def scenario() -> None:
        async with serving(answering(OK, then_close=True)) as server:
            for _ in range(4):
                assert await server.client.get("/metrics") == HttpAnswer(200, b"ok")
            assert server.connections == 4

    asyncio.run(scenario())


def test_a_server_that_wants_no_further_request_is_connected_to_anew() -> None:
    async def scenario() -> None:
        closing = OK.replace(b"content-length", b"connection: close\r\ncontent-length")
        async with serving(answering(closing)) as server:
            for _ in range(2):
                await server.client.get("/metrics")
            assert server.connections == 2

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            HttpAnswer(200, b"abcde"),
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", HttpAnswer(200, b"to the end")),
        (b"HTTP/1.0 200 OK\r\n\r\n", HttpAnswer(200, b"")),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno", HttpAnswer(500, b"no")),
        (
            b"HTTP/1.1 302 Found\r\nlocation: http://other/\r\ncontent-length: 0\r\n\r\n",
            HttpAnswer(302, b"", b"http://other/"),
        ),
    ],
)
def test_an_answer_of_any_form_is_read_as_it_came(answer: bytes, expected: HttpAnswer) -> None:
    assert got(answering(answer, then_close=True)) == expected


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"\x00" * 100,
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nnot all",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_whole_answer_is_a_connection_error(answer: bytes) -> None:
    with pytest.raises(ConnectionError):
        got(answering(answer, then_close=True))


def endless(part: bytes, begin: bytes = b"HTTP/1.1 200 OK\r\n") -> Behave:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begin)
        while True:
            writer.write(part)
            await writer.drain()

    return behave


@pytest.mark.parametrize(
    "behave",
    [
        answering(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n" + bytes(1001)),
        endless(b"more" * 1000, b"HTTP/1.1 200 OK\r\n\r\n"),
        endless((b"x-more: " + b"m" * 1000 + b"\r\n") * 10),
    ],
)
def test_too_much_is_not_read(behave: Behave) -> None:
    with pytest.raises(AnswerTooLargeError):
        got(behave)


def test_what_was_too_much_is_not_kept_until_garbage_is_collected() -> None:
    body_bytes = 1 << 20

    async def asked_again_and_again() -> int:
        too_much = endless(bytes(1 << 16), b"HTTP/1.1 200 OK\r\n\r\n")
        async with serving(too_much, max_body_bytes=body_bytes) as server:
            for _ in range(10):
                with pytest.raises(AnswerTooLargeError):
                    await server.client.get("/metrics")
            return tracemalloc.get_traced_memory()[0]

    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        assert asyncio.run(asked_again_and_again()) < 4 * body_bytes
    finally:
        tracemalloc.stop()
        gc.enable()


def test_a_server_that_does_not_answer_is_given_up_in_time() -> None:
    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    with pytest.raises(TimeoutError):
        got(hang, timeout_s=0.1)


def test_after_a_failure_the_next_request_has_a_connection_of_its_own() -> None:
    async def scenario() -> None:
        async with serving(answering(b"garbage\r\n\r\n", OK)) as server:
            with pytest.raises(ConnectionError):
                await server.client.get("/metrics")
            server.behave = answering(OK)
            assert await server.client.get("/metrics") == HttpAnswer(200, b"ok")
            assert server.connections == 2

    asyncio.run(scenario())


def test_unrequested_bytes_harm_no_later_request() -> None:
    async def scenario() -> None:
        async with serving(answering(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad", OK)) as server:
            assert await server.client.get("/metrics") == HttpAnswer(200, b"ok")
            assert await server.client.get("/metrics") == HttpAnswer(200, b"ok")

    asyncio.run(scenario())


def test_a_name_is_refused_where_all_of_its_addresses_refuse() -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound, not listening
            client = KeptConnection("localhost", taken.getsockname()[1], 5.0, 1000)
            with pytest.raises(ConnectionRefusedError):
                await client.get("/metrics")

    asyncio.run(scenario())
