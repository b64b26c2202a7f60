"""One streamed completion of the load generator: its body, the stream that comes back, and the client.

The prompt consists of token ids, so that its length is exact. They are from a range that every vocabulary
has, and random, so no prompt shares a prefix with another and no prefix cache helps, but for the blocks whose
content has a name: equal names give equal ids. `ignore_eos` makes the output as long as it was asked to be. A
stream of hundreds of tokens is searched, not parsed, because the client shares its machine with the server
that it measures.

The client times a request as Envoy would: TTFT is the time from sending to the first byte of the body. From
there on no token wakes it: the connection collects what comes, and it is looked at once a second and at the
end.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import msgspec
import numpy as np
import numpy.typing as npt

from extproc.lab.engine.engine_profile import DEFAULT_BLOCK_SIZE
from extproc.outcomes.outcome import Failure
from extproc.outcomes.response_end import TAIL_BYTES, TokenUsage, read_usage

PATH = "/v1/completions"

_FIRST_ID, _LAST_ID = 100, 999
"""Above the special tokens that vocabularies begin with, below the end of even the smallest."""
_ID_TEXTS = np.array([list(b"%d," % number) for number in range(_FIRST_ID, _LAST_ID + 1)], np.uint8)
"""All ids have three digits, so a prompt is one gather from this table of shape (900, 4)."""

_END = b"data: [DONE]"
_ERROR = b'data: {"error"'  # inside an event's texts every quote is escaped, so this is no text


def completion_body(
    model: str,
    prompt_tokens: int,
    output_tokens: int,
    rng: np.random.Generator,
    content: Sequence[int] = (),
) -> bytes:
    """Return a streamed completion with exactly these lengths and a usage event at its end.

    `content` is as in `Arrival`: names of the first blocks, of the prompt and maybe of more.
    """
    numbers = rng.integers(len(_ID_TEXTS), size=prompt_tokens)
    if content:
        named = _named_ids(content)[:prompt_tokens]
        numbers[: len(named)] = named
    ids = _ID_TEXTS[numbers].tobytes()[:-1]
    return (
        b'{"model":%b,"stream":true,"stream_options":{"include_usage":true},"ignore_eos":true,'
        b'"max_tokens":%d,"prompt":[%b]}' % (msgspec.json.encode(model), output_tokens, ids)
    )


def _named_ids(content: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return the token numbers of blocks by name: SplitMix64 of the name and the position in the block.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014).
    """
    places = np.arange(DEFAULT_BLOCK_SIZE, dtype=np.uint64)
    mixed = (np.array(content, np.uint64)[:, None] * np.uint64(DEFAULT_BLOCK_SIZE) + places).ravel()
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed % np.uint64(len(_ID_TEXTS))).astype(np.int64)


class EventStream:
    """The part of a stream that has come; memory is bounded whatever the server sends."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.has_error = False
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        self.size_bytes += len(data)
        seen = self._tail + data
        self.has_error = self.has_error or _ERROR in seen
        self._tail = seen[-TAIL_BYTES:]

    @property
    def is_complete(self) -> bool:
        """The stream has said that it ended, and nothing of an error."""
        return not self.has_error and _END in self._tail

    def usage(self) -> TokenUsage | None:
        """Return the last counts of the server; None where it gives none."""
        return read_usage(self._tail)


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
    usage: TokenUsage = field(default_factory=TokenUsage)


def open_session() -> aiohttp.ClientSession:
    """Open connections without a limit; the load generator bounds the requests in flight."""
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
    if content.exception() is not None:  # no reader would see this error any more
        return
    try:
        async with asyncio.timeout(_LOOK_EVERY_S):
            await content.wait_eof()
    except TimeoutError:
        return
