"""A server of the model `odd`: it takes and sends trailers, and misbehaves as the prompt asks."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.scripted_backend import PAGE, chunk, reset, whole

SWITCHES = "switch protocols"
BREAKS_BEFORE, BREAKS_AFTER = "break off before the answer", "break off in the answer"
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    b"trailer: x-returned\r\nx-envoy-upstream-service-time: 1\r\n\r\n"
)


class OddServer:
    """Serves on a port that the kernel chooses."""

    def __init__(self) -> None:
        self.port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["OddServer"]:
        server = await asyncio.start_server(self._converse, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await self._answer(head.split(b" ", 2)[1], *await _read(reader, head), writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.transport.abort()

    async def _answer(
        self, path: bytes, body: bytes, trailers: dict[str, str], writer: asyncio.StreamWriter
    ) -> None:
        if path == b"/metrics":
            writer.write(whole(PAGE))
        elif path == b"/v1/models":
            writer.write(whole(b'{"data": [{"id": "odd"}]}', content_type="application/json"))
        elif SWITCHES.encode() in body:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        elif BREAKS_BEFORE.encode() in body:
            reset(writer)
        elif BREAKS_AFTER.encode() in body:
            writer.write(HEAD + chunk(b"data: {}\n\n"))
            await writer.drain()
            await asyncio.sleep(0.05)
            reset(writer)
        else:
            writer.write(HEAD + chunk(json.dumps(trailers).encode()) + b"0\r\nx-returned: yes\r\n\r\n")


async def _read(reader: asyncio.StreamReader, head: bytes) -> tuple[bytes, dict[str, str]]:
    """The body, and its trailers."""
    body, trailers = b"", {}
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            body = await reader.readexactly(int(line.removeprefix(b"content-length:")))
        if line.startswith(b"transfer-encoding:"):
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            while (trailer := await reader.readline()) != b"\r\n":
                name, _, value = trailer.decode().partition(":")
                trailers[name] = value.strip()
    return body, trailers


async def ask_with_trailers(port: int, *parts: bytes) -> bytes:
    """Send a request with a body in chunks, and with a trailer, and return the raw response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        b"POST /v1/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    writer.write(head + b"".join(map(chunk, parts)) + b"0\r\nx-sent: yes\r\n\r\n")
    try:
        async with asyncio.timeout(20.0):
            return await reader.read()
    finally:
        writer.close()
