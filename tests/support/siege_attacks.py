"""The attacks of the hostile client of a siege (`support.siege`), and how often a second each is made."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import count, cycle
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from support.client_load import chat

Attack = Callable[["Client"], Awaitable[object]]

HOLDS_S = 8.0
MIB = 1 << 20
NUMBERS = count()
TENANT = {"x-extproc-tenant": "hostile"}
"""As a gateway sets it, which knows its clients apart."""

VIDEOS = [{"type": "video_url", "video_url": {"url": "x"}}] * 4000
GIANT = json.dumps(chat(max_tokens=1) | {"messages": [{"role": "user", "content": VIDEOS}]}).encode()
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

    async def ask(
        self, body: Any, headers: Mapping[str, str] | None = None, path: str = "/v1/chat/completions"
    ) -> None:
        """Send a request, by default a chat, and read the answer."""
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        sent = {"content-type": "application/json", **TENANT, **(headers or {})}
        async with self._session.post(self._url + path, data=data, headers=sent) as response:
            await response.read()

    async def get(self, path: str) -> None:
        """Send a request without a body."""
        async with self._session.get(self._url + path, headers=TENANT) as response:
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
    """Claim a great deal of work in a small body."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.15):
            await client.ask(GIANT)


async def slow_upload(client: Client) -> None:
    """Send a request but for its last byte."""
    body = json.dumps(chat()).encode()
    await client.leave_half(body[:-1], len(body), HOLDS_S)


async def half_body(client: Client) -> None:
    """Send half of a very large body."""
    await client.leave_half(bytes(24 * MIB), 31 * MIB, HOLDS_S)


async def announced(client: Client) -> None:
    """Announce a very large body, and send none of it."""
    await client.leave_half(b"", 32 * MIB, HOLDS_S)


async def models(client: Client) -> None:
    """Ask for the list of models."""
    await client.get("/v1/models")


async def unknown_response(client: Client) -> None:
    """Go on from a response that no server has, by an id that no server makes."""
    number = next(NUMBERS)
    await client.ask(
        chat() | {"input": "x", "previous_response_id": f"resp_{number}" * 40}, path="/v1/responses"
    )


async def odd_body(client: Client) -> None:
    """Send JSON that is deep, wide or wrong."""
    await client.ask(next(ODD_BODIES))


async def new_name(client: Client) -> None:
    """Ask for a model that was never heard of."""
    await client.ask(chat(model=f"m-{next(NUMBERS)}"))


async def odd_headers(client: Client) -> None:
    """Send the headers that extproc reads, each with a lie, and prompts that it has never seen."""
    number = next(NUMBERS)
    body = chat(max_tokens=1)
    body["messages"][0]["content"] = f"{number}" * 10
    headers = {
        "session-id": f"{number}" * 20,
        "x-slo-ttft-ms": "1",
        "x-extproc-cluster": "vllm-1",
        "x-extproc-priority": "99",
        "x-gateway-destination-endpoint": "127.0.0.1:1",
        "x-prefiller-host-port": "127.0.0.1:1",
        "traceparent": f"00-{number + 1:032x}-{number + 1:016x}-01",
    }
    with suppress(TimeoutError):
        async with asyncio.timeout(2.0):
            await client.ask(body, headers)


async def no_body(client: Client) -> None:
    """Send a request without a body, to a server."""
    await client.get(f"/v1/responses/resp_{next(NUMBERS)}")


async def aborted(client: Client) -> None:
    """Leave a stream as soon as it has begun."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.ask(chat(max_tokens=50))


async def long_stream(client: Client) -> None:
    """Hold a place for as long as it can be."""
    await client.ask(chat(max_tokens=500))


ATTACKS: tuple[tuple[Attack, float], ...] = (
    (giant, 20),
    (slow_upload, 8),
    (half_body, 1),
    (announced, 8),
    (models, 100),
    (unknown_response, 20),
    (odd_body, 5),
    (new_name, 200),
    (odd_headers, 10),
    (no_body, 200),
    (aborted, 10),
    (long_stream, 20),
)
"""Large bodies are fewer than 200 a second, which would show how fast this machine is, which all share."""
