"""One hostile client and one hostile server of a fleet: what each does, in turn, beside other clients.

    python -m support.siege PORT

It is a process of its own, so that attacks do not delay the measurements. The server listens on PORT at
once, and answers well; the attacks begin with a line on stdin, with Envoy's URL and the seconds. It prints
how many it has made.
"""

import asyncio
import io
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import count, cycle
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from support.client_load import chat
from support.hostile_metrics import in_chunks, padded, until_closed, with_headers
from support.scripted_backend import Behaviour, ScriptedBackend, page

Attack = Callable[["Client"], Awaitable[object]]

SOCKETS = 64
"""The most that the hostile client has open."""
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


class Client:
    """The hostile client: a session, and the URL that it attacks."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def ask(self, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send a chat, and read the answer."""
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        sent = {"content-type": "application/json", **(headers or {})}
        url = f"{self._url}/v1/chat/completions"
        async with self._session.post(url, data=data, headers=sent) as response:
            await response.read()

    async def get(self, path: str) -> None:
        """Send a request without a body."""
        async with self._session.get(self._url + path) as response:
            await response.read()

    async def leave_half(self, body: bytes, length: int, holds_s: float) -> None:
        """Send a part of a body, wait, and hang up."""
        url = urlsplit(self._url)
        _, writer = await asyncio.open_connection(url.hostname, url.port)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"
        try:
            writer.write(head.encode() + body)
            async with asyncio.timeout(holds_s):
                await writer.drain()
            await asyncio.sleep(holds_s)
        finally:
            writer.close()


async def giant(client: Client) -> None:
    """A small body that claims a great deal of work."""
    media = [{"type": "video_url", "video_url": {"url": "x"}}] * 4000
    body = chat(max_tokens=1) | {"messages": [{"role": "user", "content": media}]}
    with suppress(TimeoutError):
        async with asyncio.timeout(0.15):
            await client.ask(body)


async def slow_upload(client: Client) -> None:
    """A request whose last byte does not come."""
    body = json.dumps(chat()).encode()
    await client.leave_half(body[:-1], len(body), HOLDS_S)


async def half_body(client: Client) -> None:
    """Half of a very large body."""
    await client.leave_half(bytes(24 * MIB), 31 * MIB, HOLDS_S)


async def odd_body(client: Client) -> None:
    """JSON that is deep, wide or wrong."""
    await client.ask(next(ODD_BODIES))


async def new_name(client: Client) -> None:
    """A model, a session and a tenant that were never heard of."""
    number = next(NUMBERS)
    await client.ask(chat(model=f"m-{number}"), headers={"session-id": f"{number}"})


async def no_body(client: Client) -> None:
    """A request without a body, to a server."""
    await client.get(f"/v1/responses/resp_{next(NUMBERS)}")


async def aborted(client: Client) -> None:
    """A stream that is left as soon as it has begun."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.ask(chat(max_tokens=50))


ATTACKS: tuple[tuple[Attack, float], ...] = (
    (giant, 20),
    (slow_upload, 8),
    (half_body, 1),
    (odd_body, 5),
    (new_name, 50),
    (no_body, 50),
    (aborted, 10),
)
"""Each with how often a second it is made: more would show how fast this machine is, which all share."""


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


async def besiege(client: Client, lasts_s: float) -> int:
    """Make every attack for its share of the time; how many were made."""
    loop = asyncio.get_running_loop()
    made: set[asyncio.Task[object]] = set()
    total = 0
    for attack, per_s in ATTACKS:
        ends_s = loop.time() + lasts_s / len(ATTACKS)
        while loop.time() < ends_s:
            if len(made) < SOCKETS:
                task = asyncio.ensure_future(_once(attack, client))
                made.add(task)
                task.add_done_callback(made.discard)
                total += 1
            await asyncio.sleep(1 / per_s)
    await asyncio.gather(*made)
    return total


async def _once(attack: Attack, client: Client) -> object:
    with suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
        return await attack(client)
    return None


async def lie(server: ScriptedBackend, lasts_s: float) -> None:
    """Have a server tell every lie for its share of the time; it answers requests all the while."""
    honest = server.on_scrape
    for behaviour in LIES:
        server.on_scrape = behaviour
        await asyncio.sleep(lasts_s / len(LIES))
    server.on_scrape = honest


async def main(port: int) -> None:
    server = ScriptedBackend()
    async with server.serving(port), aiohttp.ClientSession() as session:
        url, lasts_s = (await asyncio.to_thread(sys.stdin.readline)).split()
        client = Client(session, url)
        made, _ = await asyncio.gather(besiege(client, float(lasts_s)), lie(server, float(lasts_s)))
        print(made, flush=True)
        await asyncio.to_thread(sys.stdin.readline)  # it goes on answering until it is told to end


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
