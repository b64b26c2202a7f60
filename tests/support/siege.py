"""One hostile client and one hostile server of a fleet: what each does, in turn, beside other clients."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count, cycle
from urllib.parse import urlsplit

import aiohttp
from support.client_load import chat
from support.hostile_metrics import in_chunks, padded, until_closed, with_headers
from support.process_stack import LocalStack
from support.scripted_backend import Behaviour, ScriptedBackend, page

Attack = Callable[[LocalStack], Awaitable[object]]

PER_S, SOCKETS = 100, 64
"""The most that the hostile client asks, and has open."""
HOLDS_S = 8.0
MIB = 1 << 20
NUMBERS = count()

ODD_BODIES = cycle(
    [
        b'{"model": "sim", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model": "sim", "max_tokens": 1e999, "prompt": [1e400]}',
        b'{"model": "sim", "messages": [{"role": "user", "content": "\\ud83d"}], "max_tokens": NaN}',
        b'{"model": "sim", %s "prompt": 1}' % b"".join(b'"%d": 0,' % key for key in range(100_000)),
        b"\xff" * 100_000,
    ]
)


async def raw(stack: LocalStack, head: str, body: bytes, holds_s: float) -> None:
    """Send the beginning of a request, wait, and hang up."""
    url = urlsplit(stack.envoy.url)
    _, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        writer.write(f"{head}\r\nhost: x\r\ncontent-type: application/json\r\n".encode() + body)
        async with asyncio.timeout(holds_s):
            await writer.drain()
        await asyncio.sleep(holds_s)
    finally:
        writer.close()


async def giant(stack: LocalStack) -> None:
    """A small body that claims a great deal of work."""
    media = [{"type": "video_url", "video_url": {"url": "x"}}] * 4000
    body = chat(max_tokens=1) | {"messages": [{"role": "user", "content": media}]}
    with suppress(TimeoutError):
        async with asyncio.timeout(0.15):
            await stack.ask(body)


async def slow_upload(stack: LocalStack) -> None:
    """A request whose last byte does not come."""
    body = json.dumps(chat()).encode()
    length = f"content-length: {len(body)}\r\n\r\n".encode()
    await raw(stack, "POST /v1/chat/completions HTTP/1.1", length + body[:-1], HOLDS_S)


async def half_body(stack: LocalStack) -> None:
    """Half of a very large body."""
    length = f"content-length: {31 * MIB}\r\n\r\n".encode()
    await raw(stack, "POST /v1/chat/completions HTTP/1.1", length + bytes(24 * MIB), HOLDS_S)


async def odd_body(stack: LocalStack) -> None:
    """JSON that is deep, wide or wrong."""
    await stack.ask(data=next(ODD_BODIES))


async def new_name(stack: LocalStack) -> None:
    """A model, a session and a tenant that were never heard of."""
    number = next(NUMBERS)
    await stack.ask(chat(model=f"m-{number}"), headers={"session-id": f"{number}"})


async def no_body(stack: LocalStack) -> None:
    """A request without a body, to a server."""
    await stack.session.get(f"{stack.envoy.url}/v1/responses/resp_{next(NUMBERS)}")


async def aborted(stack: LocalStack) -> None:
    """A stream that is left as soon as it has begun."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await stack.ask(chat(max_tokens=50))


ATTACKS: tuple[tuple[Attack, float], ...] = (
    (giant, 20),
    (slow_upload, 8),
    (half_body, 3),
    (odd_body, 20),
    (new_name, PER_S),
    (no_body, PER_S),
    (aborted, 10),
)
"""Each with how often a second it is made."""


def gauges(running: str) -> Behaviour:
    return page(f"vllm:num_requests_running {running}\nvllm:num_requests_waiting {running}\n".encode())


def sending(answer: bytes) -> Behaviour:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        with suppress(ConnectionError):
            await writer.drain()

    return send


LIES: tuple[Behaviour, ...] = (
    sending(in_chunks(padded(MIB // 4), 1)),
    sending(with_headers(b"a:b\r\n" * 200_000)),
    sending(until_closed(padded(MIB - 100))),
    gauges("0"),
    gauges("999999"),
    gauges("1e308"),
    page(b"<html>", content_type="text/html"),
)


async def besiege(stack: LocalStack, lasts_s: float) -> int:
    """Make every attack for its share of the time; how many were made."""
    loop = asyncio.get_running_loop()
    made: set[asyncio.Task[object]] = set()
    total = 0
    for attack, per_s in ATTACKS:
        ends_s = loop.time() + lasts_s / len(ATTACKS)
        while loop.time() < ends_s:
            if len(made) < SOCKETS:
                task = asyncio.ensure_future(_once(attack, stack))
                made.add(task)
                task.add_done_callback(made.discard)
                total += 1
            await asyncio.sleep(1 / per_s)
    await asyncio.gather(*made)
    return total


async def _once(attack: Attack, stack: LocalStack) -> object:
    with suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
        return await attack(stack)
    return None


async def lie(server: ScriptedBackend, lasts_s: float) -> None:
    """Have a server tell every lie for its share of the time; it answers requests all the while."""
    honest = server.on_scrape
    for behaviour in LIES:
        server.on_scrape = behaviour
        await asyncio.sleep(lasts_s / len(LIES))
    server.on_scrape = honest
