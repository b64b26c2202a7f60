"""The client of the load generator: sends one request, follows its stream, and times it as Envoy would.

TTFT is the time from sending to the first byte of the body. From there on nobody is woken for each token:
the connection collects what comes, and it is looked at once a second and at the end.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from extproc.lab.load.completion import EventStream, Usage
from extproc.outcomes.outcome import Failure

REQUEST_TIMEOUT_S = 300.0
"""Guessed: three times the longest TTFT of the deployment that this project comes from."""
_CONNECT_TIMEOUT_S = 10.0  # guessed
_LOOK_EVERY_S = 1.0
_KEEPALIVE_S = 2.0  # below the 5 s after which uvicorn closes an idle connection under a request
_BUFFER_BYTES = 1 << 20  # more than a server streams between two looks

_HEADERS: Final = {"content-type": "application/json", "accept-encoding": "identity"}


@dataclass(slots=True)
class Reply:
    """How a request went, filled in as it goes; `status` is 0 until there is one."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    failure: Failure | None = None
    ttft_s: float | None = None
    duration_s: float = 0.0
    response_bytes: int = 0
    usage: Usage = field(default_factory=Usage)


def open_session() -> aiohttp.ClientSession:
    """Connections without a limit of their own; the load generator bounds what is in flight."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=_BUFFER_BYTES,
        trust_env=False,
        auto_decompress=False,
    )


async def ask(
    session: aiohttp.ClientSession, url: str, body: bytes, reply: Reply, timeout_s: float = REQUEST_TIMEOUT_S
) -> None:
    """Send a request and fill in `reply`, which tells of every failure; only a cancellation is raised."""
    started_s = time.monotonic()
    try:
        async with (
            asyncio.timeout(timeout_s),
            session.post(url, data=body, headers=_HEADERS, allow_redirects=False) as response,
        ):
            reply.status, reply.headers = response.status, response.headers
            if response.status == 200:
                await _follow(response.content, reply, started_s)
            else:
                reply.failure = Failure.SERVER_ERROR if response.status >= 500 else Failure.CLIENT_ERROR
    except asyncio.CancelledError:
        reply.failure = Failure.CLIENT_LEFT
        raise
    except TimeoutError:
        reply.failure = Failure.TIMEOUT
    except aiohttp.ClientConnectorError:
        reply.failure = Failure.CONNECT
    except (aiohttp.ClientError, OSError, ValueError):
        reply.failure = Failure.RESET
    finally:
        reply.duration_s = time.monotonic() - started_s


async def _follow(content: aiohttp.StreamReader, reply: Reply, started_s: float) -> None:
    stream = EventStream()
    data = await content.readany()
    if data:
        reply.ttft_s = time.monotonic() - started_s
    while data:
        stream.feed(data)
        reply.response_bytes = stream.size_bytes
        await _wait_for_end(content)
        data = await content.readany()
    reply.usage = stream.usage() or reply.usage
    if not stream.is_complete:
        reply.failure = Failure.SERVER_ERROR


async def _wait_for_end(content: aiohttp.StreamReader) -> None:
    """Return at the end of the body, or after a while."""
    if content.exception() is not None:  # of this nobody would be told any more
        return
    try:
        async with asyncio.timeout(_LOOK_EVERY_S):
            await content.wait_eof()
    except TimeoutError:
        return
