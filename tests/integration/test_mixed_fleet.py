"""Servers of different models behind one address: whatever it looks like, a request meets its model."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from support.patience import PATIENCE_S
from support.ports import free_port
from support.process_stack import LocalStack, running
from support.scripted_backend import PAGE

CHAT = {"model": "whisper", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
TRIES = 6
"""A request that is placed at random would have to be lucky so often."""


@dataclass
class Server:
    """Says which models it serves, and its name to whatever it is asked."""

    name: str
    models: list[str]
    received: list[web.Request] = field(default_factory=list)
    port: int = 0

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[None]:
        """Serve, on a port that the kernel chooses at first."""
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            self.port = runner.addresses[0][1]
            yield
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/metrics":
            return web.Response(body=PAGE)
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": model} for model in self.models]})
        if request.headers.get("upgrade") == "websocket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_str(self.name)
            await socket.close()
            return socket
        await request.read()
        self.received.append(request)
        return web.Response(text=self.name)


@asynccontextmanager
async def mixed(stack: LocalStack) -> AsyncIterator[list[Server]]:
    """Three servers, of which only the last one has `whisper`, behind a running stack."""
    servers = [Server("a", ["chat"]), Server("b", ["chat", "adapter"]), Server("c", ["whisper"])]
    async with AsyncExitStack() as exits:
        for server in servers:
            await exits.enter_async_context(server.serving())
            stack.backends[server.name] = server.port
        await exits.enter_async_context(running(stack))
        yield servers


def form() -> bytes:
    part = '--b4\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n'
    audio = bytes(range(256)) * 2000
    file = (part % ("file", '; filename="a.wav"')).encode() + audio
    return file + ("\r\n" + part % ("model", "") + "whisper\r\n--b4--\r\n").encode()


JSON = json.dumps(CHAT).encode()
SHAPES = {
    "a form": ("/v1/audio/transcriptions", form(), {"content-type": "multipart/form-data; boundary=b4"}),
    "gzip": ("/v1/chat/completions", gzip.compress(JSON), {"content-encoding": "gzip"}),
    "deflate": ("/v1/chat/completions", zlib.compress(JSON), {"content-encoding": "deflate"}),
    "half a surrogate pair": ("/v1/chat/completions", JSON.replace(b"hello", rb"cut \ud83d"), {}),
    "NaN": ("/v1/chat/completions", JSON.replace(b"5", b'5, "top_p": NaN'), {}),
    "UTF-16": ("/v1/chat/completions", JSON.decode().encode("utf-16"), {}),
    "messages": ("/v1/messages", JSON, {}),
    "rerank": ("/rerank", b'{"model": "whisper", "query": "a", "documents": ["b"]}', {}),
    "tokenize": ("/tokenize", b'{"model": "whisper", "prompt": "a"}', {}),
}


def test_a_request_of_any_shape_meets_a_server_of_its_model(stack: LocalStack) -> None:
    async def scenario() -> None:
        async with mixed(stack):
            bombs = [gzip.compress(b'{"model": "whisper", "prompt": "%s"}' % bytes(1 << n)) for n in (20, 24)]
            for bomb in (b"no gzip", *bombs):
                refused = await stack.ask(data=bomb, headers={"content-encoding": "gzip"})
                assert (refused.status, refused.headers["x-extproc-reason"]) == (400, "cut_off")
            for shape, (path, body, headers) in SHAPES.items():
                answers = [await stack.ask(data=body, path=path, headers=headers) for _ in range(TRIES)]
                assert (shape, [answer.body for answer in answers]) == (shape, [b"c"] * TRIES)

    asyncio.run(scenario())


def test_the_models_of_all_servers_are_listed_and_a_websocket_meets_its_model(stack: LocalStack) -> None:
    async def scenario() -> None:
        async with mixed(stack):
            for _ in range(TRIES):
                async with stack.session.get(f"{stack.envoy.url}/v1/models") as response:
                    listed = await response.json()
                assert [model["id"] for model in listed["data"]] == ["adapter", "chat", "whisper"]
                async with stack.session.ws_connect(f"{stack.envoy.url}/v1/realtime?model=whisper") as socket:
                    assert await socket.receive_str() == "c"
            await stack.until_idle()
            assert await stack.metric("extproc_answered_total") == TRIES
            await stack.until_metric("extproc_unplaced_outcomes_total", TRIES)
            assert await stack.metric("extproc_failed_open_total") == 0

    asyncio.run(scenario())


async def knows_its_peers(stack: LocalStack, name: str) -> bool:
    """Whether Envoy has the clusters in which no other backend stands in for this one."""
    written = json.loads(stack.cds_path.read_bytes())
    (retry,) = (each for each in written["resources"] if each["name"] == f"{name}_retry")
    (group,) = retry["load_assignment"]["endpoints"]
    loaded = await asyncio.to_thread(stack.envoy.stat, "cluster_manager.cds.version_text")
    return len(group["lb_endpoints"]) == 1 and loaded == written["version_info"]


def test_a_model_whose_server_is_down_is_a_503_and_never_another_servers_404(stack: LocalStack) -> None:
    """Down from the start: nothing is known of it but that it could be the one."""
    late = Server("c", ["whisper"])

    async def scenario() -> None:
        late.port = free_port()
        async with AsyncExitStack() as exits:
            others = [Server("a", ["chat"]), Server("b", ["other"])]
            for server in others:
                await exits.enter_async_context(server.serving())
                stack.backends[server.name] = server.port
            stack.backends["c"] = late.port
            stack.until_routable = lambda count: LocalStack.until_routable(stack, 2)  # type: ignore[method-assign]
            await exits.enter_async_context(running(stack))
            async with asyncio.timeout(PATIENCE_S):
                while not await knows_its_peers(stack, "c"):
                    await asyncio.sleep(0.05)
            for _ in range(TRIES):
                answer = await stack.ask(CHAT)
                assert (answer.status, answer.headers["content-type"]) == (503, "application/json")
                assert int(answer.headers["retry-after"]) > 0
            assert not any(server.received for server in others)
            await exits.enter_async_context(late.serving(late.port))
            async with asyncio.timeout(PATIENCE_S):
                while (await stack.ask(CHAT)).body != b"c":
                    await asyncio.sleep(0.1)

    asyncio.run(scenario())
