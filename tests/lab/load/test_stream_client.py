import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from support.ports import free_port

from extproc.lab.load.stream_client import Reply, ask, open_session
from extproc.outcomes.outcome import Failure

TOKEN = b'data: {"choices":[{"text":"a"}]}\n\n'
END = b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":2}}\n\ndata: [DONE]\n\n'

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def asked(handler: Handler, timeout_s: float = 20.0, reply: Reply | None = None) -> Reply:
    """What the client makes of a server's answer."""
    reply = reply or Reply()
    application = web.Application()
    application.router.add_post("/", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with open_session() as session:
            await ask(session, f"http://127.0.0.1:{runner.addresses[0][1]}/", b"{}", reply, timeout_s)
    finally:
        await runner.cleanup()
    return reply


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


def streaming(*pieces: bytes, pause_s: float = 0.0, is_cut: bool = False) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"x-extproc-backend": "vllm-1"})
        await response.prepare(request)
        for piece in pieces:
            await asyncio.sleep(pause_s)
            await response.write(piece)
        if is_cut:
            assert request.transport is not None
            request.transport.abort()
        else:
            await response.write_eof()
        return response

    return handler


def test_a_good_stream_is_timed_and_counted() -> None:
    reply = asyncio.run(asked(streaming(TOKEN, TOKEN, END, pause_s=0.25)))
    assert (reply.status, reply.failure) == (200, None)
    assert reply.headers["x-extproc-backend"] == "vllm-1"
    assert reply.response_bytes == len(2 * TOKEN + END)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (4, 2)
    assert reply.ttft_s is not None
    assert reply.ttft_s >= 0.24, "the headers are not the first byte"
    assert reply.duration_s - reply.ttft_s >= 0.2, "two pauses, of which the second comes in any case"


def test_a_stream_that_lasts_longer_than_a_look_is_read_to_its_end() -> None:
    reply = asyncio.run(asked(streaming(TOKEN, TOKEN * 1000, END, pause_s=0.6)))
    assert (reply.failure, reply.response_bytes) == (None, len(1001 * TOKEN + END))


@pytest.mark.parametrize(
    ("handler", "failure"),
    [
        (streaming(TOKEN, b'data: {"error": {"code": 503}}\n\n', b"data: [DONE]\n\n"), Failure.SERVER_ERROR),
        (streaming(TOKEN), Failure.SERVER_ERROR),
        (streaming(), Failure.SERVER_ERROR),
        (streaming(TOKEN, is_cut=True), Failure.RESET),
        (streaming(is_cut=True), Failure.RESET),
    ],
    ids=["error in the stream", "no end", "empty", "cut", "cut at once"],
)
def test_a_stream_that_does_not_end_well_is_a_failure(handler: Handler, failure: Failure) -> None:
    reply = asyncio.run(asked(handler))
    assert (reply.status, reply.failure) == (200, failure)


@pytest.mark.parametrize(
    ("status", "failure"),
    [(500, Failure.SERVER_ERROR), (503, Failure.SERVER_ERROR), (400, Failure.CLIENT_ERROR)],
)
def test_another_status_is_a_failure_without_ttft(status: int, failure: Failure) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, text="no")

    reply = asyncio.run(asked(handler))
    assert (reply.status, reply.failure, reply.ttft_s) == (status, failure, None)


@pytest.mark.parametrize("pieces", [(), (TOKEN,)], ids=["before the first byte", "within the stream"])
def test_a_server_that_hangs_is_given_up(pieces: tuple[bytes, ...]) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        return await hang(request)

    reply = asyncio.run(asked(handler, timeout_s=1.0))
    assert reply.failure is Failure.TIMEOUT
    assert (reply.ttft_s is not None) == bool(pieces)


def test_a_port_where_nobody_listens_is_a_failed_connection() -> None:
    async def scenario() -> Reply:
        reply = Reply()
        async with open_session() as session:
            await ask(session, f"http://127.0.0.1:{free_port()}/", b"{}", reply)
        return reply

    reply = asyncio.run(scenario())
    assert (reply.status, reply.failure) == (0, Failure.CONNECT)


def test_an_aborted_request_says_so_and_stays_aborted() -> None:
    async def scenario() -> Reply:
        has_arrived, reply = asyncio.Event(), Reply()

        async def handler(request: web.Request) -> web.StreamResponse:
            has_arrived.set()
            return await hang(request)

        task = asyncio.create_task(asked(handler, reply=reply))
        await has_arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return reply

    assert asyncio.run(scenario()).failure is Failure.CLIENT_LEFT
