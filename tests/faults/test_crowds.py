"""Many at once: long streams, and clients that leave in the middle of everything."""

import asyncio
import random
import socket
import struct

import pytest
from support.client_load import chat
from support.fault_drill import CONCURRENCY, Drill, open_descriptors, scripted
from support.fault_table import FaultTable
from support.patience import until
from support.process_stack import LocalStack
from support.scripted_backend import END, EVENT, HEADERS, chunk

STREAMS = 1000
ABORTS = 5000
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"content-length: 82\r\n\r\n"
    b'{"model": "sim", "stream": true, "messages": [{"role": "user", "content": "word"}]}'[:82]
)


@pytest.mark.fault
def test_a_thousand_long_streams_are_all_counted_and_all_end(stack: LocalStack, table: FaultTable) -> None:
    stack.stages["guard"] = {"max_active": STREAMS}

    async def scenario() -> None:
        may_end = asyncio.Event()

        async def long_stream(writer: asyncio.StreamWriter) -> None:
            writer.write(HEADERS + chunk(EVENT))
            while not may_end.is_set():
                await asyncio.sleep(1.0)
                writer.write(chunk(EVENT))
                await writer.drain()
            writer.write(chunk(END) + chunk(b""))

        async with scripted(stack) as backends:
            for backend in backends:
                backend.on_request = long_stream
            drill = Drill(stack, table, "1,000 concurrent long streams")
            asked = [asyncio.create_task(stack.ask(chat())) for _ in range(STREAMS)]
            await stack.until(lambda state: sum(b["own"] for b in state["backends"]) == STREAMS)
            held = [b["own"] for b in (await stack.state())["backends"]]
            assert held == [STREAMS // 2, STREAMS // 2]
            assert not any(one.done() for one in asked)
            may_end.set()
            drill.answers = list(await asyncio.gather(*asked))
            with drill.recovering():
                await stack.until_idle()
            await drill.conclude()

    asyncio.run(scenario())


async def leave_in_the_middle(port: int, dice: random.Random) -> None:
    """Connect, send some of a request, or all of it and read some of the answer, and leave by RST or FIN."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = dice.choice((0, 20, 90, len(REQUEST) - 5, len(REQUEST), len(REQUEST)))
    writer.write(REQUEST[:sent])
    await writer.drain()
    if sent == len(REQUEST) and dice.random() < 0.5:
        await reader.read(100)
    if dice.random() < 0.5:
        held: socket.socket = writer.get_extra_info("socket")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.fault
def test_five_thousand_clients_that_leave_leave_nothing_behind(stack: LocalStack, table: FaultTable) -> None:
    dice = random.Random(1)

    async def scenario() -> None:
        async with scripted(stack):
            assert stack.sidecar.pid is not None
            port = int(stack.envoy.url.rsplit(":", 1)[1])
            before = open_descriptors(stack.sidecar.pid)
            places = asyncio.Semaphore(64)

            async def one() -> None:
                async with places:
                    await leave_in_the_middle(port, dice)

            async with Drill(stack, table, "5,000 aborted connects") as load:
                await asyncio.gather(*(one() for _ in range(ABORTS)))
                with load.recovering():
                    await stack.until(lambda state: sum(b["own"] for b in state["backends"]) <= CONCURRENCY)
            await until(lambda: open_descriptors(stack.sidecar.pid or 0) <= before + 8)
            assert await stack.metric("extproc_open_streams") == 0

    asyncio.run(scenario())
