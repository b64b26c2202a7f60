"""One hostile client at the whole stack, beside others: the others are neither refused nor failed."""

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from support.client_load import Answer, chat
from support.fault_drill import scripted
from support.patience import PATIENCE_S, until
from support.process_stack import LocalStack, running
from support.scripted_backend import END, EVENT, MODELS, never_answer, stream

STREAM_S = 2.0
POISON = chat(words=3)
MAX_ACTIVE = 16
USERS, USERS_PER_S = 40, 10.0


class Server:
    """Streams for STREAM_S; answers POISON with 500, or drops its connection."""

    def __init__(self, is_dropping: bool) -> None:
        self.running = 0
        self.poisoned = 0
        self._is_dropping = is_dropping

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        application = web.Application()
        application.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/v1/models", self._models),
                web.post("/v1/chat/completions", self._answer),
            ]
        )
        runner = web.AppRunner(application, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=f"vllm:num_requests_running {self.running}\nvllm:num_requests_waiting 0\n")

    async def _models(self, _: web.Request) -> web.Response:
        return web.Response(body=MODELS)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if await request.json() == POISON:
            self.poisoned += 1
            if self._is_dropping:
                assert request.transport is not None
                request.transport.abort()
            return web.Response(status=500)
        self.running += 1
        try:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            for _ in range(10):
                await response.write(EVENT)
                await asyncio.sleep(STREAM_S / 10)
            await response.write(END)
            return response
        finally:
            self.running -= 1


async def use(stack: LocalStack) -> list[Answer]:
    """Ask as many users do: some requests a second, whatever becomes of those before."""

    async def one(number: int) -> Answer:
        await asyncio.sleep(number / USERS_PER_S)
        return await stack.ask(chat(words=50 + number))

    return await asyncio.gather(*map(one, range(USERS)))


@pytest.mark.parametrize("is_dropping", [False, True], ids=["500", "dropped connections"])
def test_poison_of_one_client_refuses_and_fails_no_request_of_others(
    stack: LocalStack, is_dropping: bool
) -> None:
    async def poison() -> None:
        while True:
            await asyncio.gather(*(stack.ask(POISON) for _ in range(4)), return_exceptions=True)
            await asyncio.sleep(0.2)  # fifty failures of a backend in a row would take it out for a second

    async def scenario() -> None:
        async with AsyncExitStack() as exits:
            servers = [Server(is_dropping) for _ in range(3)]
            ports = [await exits.enter_async_context(server.serving()) for server in servers]
            stack.backends = {f"vllm-{number}": port for number, port in enumerate(ports, 1)}
            stack.stages["guard"] = {"max_active": MAX_ACTIVE}
            await exits.enter_async_context(running(stack))
            hostile = asyncio.create_task(poison())
            during = await use(stack)
            await until(lambda: min(server.poisoned for server in servers) > 20)
            hostile.cancel()
            await asyncio.gather(hostile, return_exceptions=True)
            reasons = (await stack.state())["reasons"]
            after = await use(stack)
            if not is_dropping:  # what is dropped is tried twice, and counts twice
                assert not {"least_load.all_failing", "least_load.last_resort"} & reasons.keys(), reasons
            # Dropped connections may open all breakers for a moment: a request that comes then is refused.
            spared = USERS - 2 if is_dropping else USERS
            for answers, least in ((during, spared), (after, USERS)):
                statuses = Counter(answer.status for answer in answers)
                assert statuses[200] >= least, statuses
                assert all(answer.is_complete for answer in answers if answer.status == 200)
            shares = Counter(answer.backend for answer in after)
            assert len(shares) == len(servers), "each has a share again"

    asyncio.run(scenario())


MIB = 1 << 20
HEAP_MIB, HELD_MIB = 110, 60


def with_little_memory(bootstrap: str) -> str:
    shipped = "max_heap_size_bytes: 1610612736"
    assert shipped in bootstrap
    return bootstrap.replace(shipped, f"max_heap_size_bytes: {HEAP_MIB * MIB}")


async def half_sent(stack: LocalStack) -> asyncio.StreamWriter:
    """Send 30 MiB of a body of 31, unless it is refused before."""
    url = urlsplit(stack.envoy.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {31 * MIB}\r\n\r\n"
    writer.write(head.encode())
    with suppress(TimeoutError):
        await asyncio.wait_for(reader.readline(), 0.2)
        return writer
    with suppress(ConnectionError):
        for _ in range(30):
            writer.write(bytes(MIB))
            await writer.drain()
    return writer


def large() -> io.BytesIO:
    return io.BytesIO(b'{"model": "sim", "messages": [], "pad": "%s"}' % (b"x" * 20 * MIB))


def test_large_bodies_of_one_client_leave_room_for_the_requests_of_others(stack: LocalStack) -> None:
    """A third of them fills Envoy's heap, in which case all requests were refused."""
    stack.edit_envoy = with_little_memory
    address = f"127.0.0.1:{stack.grpc_port}"
    stack.stages["server"] = {"address": address, "drain_s": 2.0, "max_held_bytes": HELD_MIB * MIB}

    async def scenario() -> None:
        async with scripted(stack, 1) as (backend,):
            assert (await stack.ask()).is_complete
            halves = [await half_sent(stack) for _ in range(4)]
            assert all([(await stack.ask()).is_complete for _ in range(2)])
            refused = await stack.ask(data=large())
            assert (refused.status, refused.headers["x-extproc-reason"]) == (503, "large_bodies")
            assert int(refused.headers["retry-after"]) >= 1
            for half in halves:
                half.close()
            async with asyncio.timeout(PATIENCE_S):
                while (await stack.ask(data=large())).status != 200:
                    await asyncio.sleep(0.1)

            backend.on_request = never_answer
            whole = [asyncio.create_task(stack.ask(data=large())) for _ in range(4)]
            await until(lambda: sum(task.done() for task in whole) >= 2)
            backend.on_request = stream
            assert (await stack.ask()).is_complete
            for task in whole:
                task.cancel()
            await asyncio.gather(*whole, return_exceptions=True)

    asyncio.run(scenario())
