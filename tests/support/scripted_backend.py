"""A backend that misbehaves as it is told to: what it does with a request, and what its `/metrics` says."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]

PAGE = b"""\
vllm:num_requests_running{engine="0"} 0.0
vllm:num_requests_waiting{engine="0"} 0.0
vllm:kv_cache_usage_perc{engine="0"} 0.0
"""
HEADERS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": " token"}}]}\n\n'
END = b"data: [DONE]\n\n"
MODELS = b'{"object": "list", "data": [{"id": "sim"}]}'
CHUNK_GAP_S = 0.02


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(body: bytes, status: str = "200 OK", content_type: str = "text/plain") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def reset(writer: asyncio.StreamWriter) -> None:
    """An RST, not a FIN."""
    held: socket.socket = writer.get_extra_info("socket")
    held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def stream(writer: asyncio.StreamWriter) -> None:
    """A good answer of three events."""
    writer.write(HEADERS)
    for _ in range(3):
        await asyncio.sleep(CHUNK_GAP_S)
        writer.write(chunk(EVENT))
        await writer.drain()
    writer.write(chunk(END) + chunk(b""))


async def reset_at_once(writer: asyncio.StreamWriter) -> None:
    reset(writer)


async def reset_after_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(HEADERS)
    await writer.drain()
    await asyncio.sleep(CHUNK_GAP_S)
    reset(writer)


async def never_answer(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drip(writer: asyncio.StreamWriter) -> None:
    """Slow loris: a good answer, one byte at a time."""
    writer.write(HEADERS)
    for byte in chunk(EVENT) + chunk(END) + chunk(b""):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


def page(body: bytes, status: str = "200 OK", content_type: str = "text/plain") -> Behaviour:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(whole(body, status, content_type))

    return answer


async def flood(writer: asyncio.StreamWriter) -> None:
    """100 MB of metrics."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
    for _ in range(1000):
        writer.write(b"vllm:num_requests_running 1\n" * 3571 + b"# padding..\n")
        await writer.drain()


class ScriptedBackend:
    """`on_request` and `on_scrape` may be changed at any time; `requests` counts what it was sent."""

    def __init__(self) -> None:
        self.on_request: Behaviour = stream
        self.on_scrape: Behaviour = page(PAGE)
        self.requests = 0
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator["ScriptedBackend"]:
        """Serve, on a port that the kernel chooses by default."""
        server = await asyncio.start_server(self._converse, "127.0.0.1", port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in self._open:
                writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while not writer.is_closing():
                await self._answer(await self._read(reader), writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # the other side, or the test, is done
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                await reader.readexactly(int(line.removeprefix(b"content-length:")))
        return head.split(b" ", 2)[1]

    async def _answer(self, path: bytes, writer: asyncio.StreamWriter) -> None:
        if path == b"/metrics":
            await self.on_scrape(writer)
        elif path == b"/v1/models":
            writer.write(whole(MODELS, content_type="application/json"))
        else:
            self.requests += 1
            await self.on_request(writer)
