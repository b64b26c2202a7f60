import asyncio
from functools import partial

import uvloop
from support.h2_socket_client import H2Client, connected, prefixed
from support.served import HEADERS, PROCESS, listening

from extproc.adapters.envoy.large_messages import LARGE_BYTES, MAX_WAITING_BYTES, LargeMessages
from extproc.adapters.protos import ext_proc_pb2
from extproc.exchange.messages import Phase
from extproc.exchange.placement import Placement
from extproc.request.request import Request

FRAME_BYTES = 16_384
MIB = 1 << 20


def body(size: int) -> bytes:
    text = b'{"model":"m","prompt":"%s"}' % bytes(size).replace(b"\0", b"x")
    message = ext_proc_pb2.ProcessingRequest(request_body=ext_proc_pb2.HttpBody(body=text))
    return prefixed(message.SerializeToString())


def send(client: H2Client, data: bytes) -> int:
    """Open a stream, and send the headers of a request and its body."""
    stream = client.begin(PROCESS)
    sent = prefixed(HEADERS) + data
    for start in range(0, len(sent), FRAME_BYTES):
        client.h2.send_data(stream, sent[start : start + FRAME_BYTES])
    client.flush()
    return stream


def test_other_events_have_their_turn_between_two_large_messages() -> None:
    async def scenario() -> list[str]:
        loop, done, order = asyncio.get_running_loop(), asyncio.Event(), list[str]()

        def read(name: str) -> None:
            order.append(name)
            loop.call_soon(order.append, f"other {name}")
            if name == "c":
                loop.call_soon(done.set)

        large = LargeMessages()
        for name in "abc":
            large.read(LARGE_BYTES, partial(read, name))
        assert order == []
        await done.wait()
        return order

    assert asyncio.run(scenario()) == ["a", "other a", "b", "other b", "c", "other c"]


def test_more_than_may_wait_is_read_at_once() -> None:
    async def scenario() -> None:
        large, read = LargeMessages(), list[str]()
        large.read(MAX_WAITING_BYTES, partial(read.append, "waits"))
        large.read(LARGE_BYTES, partial(read.append, "at once"))
        assert read == ["at once"]
        await asyncio.sleep(0)
        assert read == ["at once", "waits"]

    asyncio.run(scenario())


def test_a_small_request_overtakes_large_ones_and_all_are_answered() -> None:
    async def scenario() -> None:
        async with listening("thin") as served, connected(served.port) as client:
            sizes: list[int] = []
            place = served.place

            def noting(request: Request, phase: Phase, now_s: float) -> Placement:
                sizes.append(request.body_bytes)
                return place(request, phase, now_s)

            served.place = noting  # type: ignore[method-assign]
            await client.until(lambda: client.h2.outbound_flow_control_window > 100 * MIB)
            streams = [send(client, body(4 * MIB)) for _ in range(4)] + [send(client, body(10))]
            for stream in streams:
                await client.message(stream, 1)
            assert len(sizes) == 5
            assert min(sizes) in sizes[:-1]

    uvloop.run(scenario())


def test_a_large_message_that_is_none_ends_its_call_alone() -> None:
    async def scenario() -> None:
        async with listening("thin") as served, connected(served.port) as client:
            await client.until(lambda: client.h2.outbound_flow_control_window > 100 * MIB)
            answer = await client.ended(send(client, prefixed(b"\xff" * (2 * MIB))))
            assert answer.status == 3
            assert served.server.protocol_errors == 1
            await client.message(send(client, body(10)), 1)

    uvloop.run(scenario())
