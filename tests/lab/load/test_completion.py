import asyncio
import json
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from support.ports import free_port

from extproc.lab.load.completion import EventStream, Reply, ask, completion_body, open_session
from extproc.outcomes.outcome import Failure
from extproc.outcomes.response_end import TokenUsage


@pytest.mark.parametrize("prompt_tokens", [1, 2, 3000])
def test_the_body_asks_for_exactly_these_lengths(prompt_tokens: int) -> None:
    body = json.loads(completion_body('a "model"', prompt_tokens, 64, np.random.default_rng(0)))
    prompt = body.pop("prompt")
    assert len(prompt) == prompt_tokens
    assert all(100 <= token <= 999 for token in prompt)
    assert body == {
        "model": 'a "model"',
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "max_tokens": 64,
    }


def test_no_two_prompts_begin_alike() -> None:
    rng = np.random.default_rng(0)
    bodies = {completion_body("m", 16, 1, rng) for _ in range(1000)}
    assert len(bodies) == 1000


def prompt_of(prompt_tokens: int, content: Sequence[int], seed: int = 0) -> list[int]:
    body = json.loads(completion_body("m", prompt_tokens, 1, np.random.default_rng(seed), content))
    prompt: list[int] = body["prompt"]
    assert len(prompt) == prompt_tokens
    assert all(100 <= token <= 999 for token in prompt)
    return prompt


def test_equal_contents_begin_alike_and_the_rest_is_random() -> None:
    one, other = (prompt_of(100, content, seed) for seed, content in enumerate([(7, 9, 1 << 62), (7, 9, 5)]))
    assert one[:32] == other[:32]
    assert one[32:48] != other[32:48]
    assert one[48:] != other[48:]
    assert prompt_of(100, (7, 9, 5), seed=1) == other


def test_a_content_beyond_the_prompt_is_left_away() -> None:
    assert prompt_of(20, (7, 9, 11)) == prompt_of(48, (7, 9, 11))[:20]


def test_no_two_blocks_are_alike() -> None:
    prompt = prompt_of(16 * 5000, range(5000))
    assert len({tuple(prompt[begin : begin + 16]) for begin in range(0, len(prompt), 16)}) == 5000


TOKEN = b'data: {"choices":[{"text":" data: {\\"error\\""}],"usage":null}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":4,"total_tokens":7,"completion_tokens":3}}\n\n'
CACHED = (
    b'data: {"usage":{"prompt_tokens":9,"completion_tokens":1,'
    b'"prompt_tokens_details":{"cached_tokens":8}}}\n\n'
)
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error": {"message": "overloaded", "code": 503}}\n\n'


def read(*pieces: bytes) -> EventStream:
    stream = EventStream()
    for piece in pieces:
        stream.feed(piece)
    return stream


@given(st.lists(st.integers(0, 400), max_size=6))
def test_a_stream_reads_the_same_however_it_is_cut(cuts: list[int]) -> None:
    body = TOKEN * 5 + USAGE + DONE
    bounds = [0, *sorted(cuts), len(body)]
    stream = read(*(body[start:end] for start, end in pairwise(bounds)))
    assert (stream.is_complete, stream.size_bytes) == (True, len(body))
    assert stream.usage() == TokenUsage(prompt_tokens=4, output_tokens=3)


@given(st.integers(0, len(TOKEN + ERROR + DONE)))
def test_an_error_in_the_stream_is_seen_however_it_is_cut(cut: int) -> None:
    body = TOKEN + ERROR + DONE
    stream = read(body[:cut], body[cut:])
    assert stream.has_error
    assert not stream.is_complete


def test_an_error_at_the_beginning_is_remembered() -> None:
    assert not read(ERROR, *[TOKEN] * 500, DONE).is_complete


@pytest.mark.parametrize("body", [b"", TOKEN, TOKEN + USAGE, b"data: [DON"])
def test_a_stream_without_its_end_is_not_complete(body: bytes) -> None:
    assert not read(body).is_complete


def test_cached_tokens_are_read_where_the_server_gives_them() -> None:
    usage = read(TOKEN, CACHED, DONE).usage()
    assert usage is not None
    assert (usage.prompt_tokens, usage.output_tokens, usage.cached_tokens) == (9, 1, 8)


@pytest.mark.parametrize(
    "body",
    [DONE, TOKEN + DONE, b"data: {}\n\n", b'data: {"usage":{"prompt_tokens":"x"}}\n\n', b"data: {\xff"],
)
def test_without_counts_there_is_no_usage(body: bytes) -> None:
    assert read(body).usage() is None


def test_a_long_stream_is_not_kept() -> None:
    stream, piece = EventStream(), TOKEN * 100
    tracemalloc.start()
    for _ in range(1000):
        stream.feed(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert stream.size_bytes == 1000 * len(piece)
    assert peak < 10 * len(piece)


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
    assert (reply.usage.prompt_tokens, reply.usage.output_tokens) == (4, 2)
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


def test_a_closed_port_is_a_failed_connection() -> None:
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
