"""Connections that say nothing, or little, and stay: the cheapest way to use up a server's descriptors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def idle(port: int, count: int, greeting: bytes = b"") -> AsyncIterator[list[Connection]]:
    """This many connections, each of which has sent the greeting."""
    opened: list[Connection] = []
    try:
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(greeting)
            opened.append((reader, writer))
        yield opened
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def until_closed(connection: Connection, patience_s: float = 10.0) -> bytes:
    """What the server has sent, when it has closed the connection."""
    received = b""
    async with asyncio.timeout(patience_s):
        try:
            while part := await connection[0].read(1 << 16):
                received += part
        except ConnectionError:
            pass
    return received
