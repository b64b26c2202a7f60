"""Calls of gRPC through a real Envoy to real gRPC servers, beside servers that speak HTTP alone."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import grpc
import grpc.aio
import pytest
from support.client_load import chat
from support.envoy_process import StartEnvoy
from support.grpc_model_server import FAIL, SERVICE, GrpcModelServer
from support.patience import until
from support.process_stack import LocalStack, SharedStack
from support.scripted_sidecar import Backend, running, wave_through
from support.stack_fixtures import sharing

from extproc.exchange.messages import Event, HeadersReceived, Instruction, Phase, RouteTo
from extproc.fleet.endpoint import Endpoint
from extproc.outcomes.outcome import read_retry

GENERATE, STREAM = f"/{SERVICE}/Generate", f"/{SERVICE}/GenerateStream"
CONVERSE = "/inference.GRPCInferenceService/ModelStreamInfer"


@dataclass
class Fleet:
    """A server with both protocols, one with HTTP alone, and one with gRPC alone."""

    shared: SharedStack
    both: GrpcModelServer
    only: GrpcModelServer

    @property
    def calls(self) -> int:
        return self.both.calls + self.only.calls


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    both, only = GrpcModelServer("both"), GrpcModelServer("only")
    both_port, only_port = both.start(), only.start()

    def prepare(stack: LocalStack) -> None:
        for name in ("both", "http"):
            stack.start_sim(name, "--speed", "4")
        urls = {name: f"http://127.0.0.1:{port}" for name, port in stack.backends.items()}
        alone = {"url": f"http://127.0.0.1:{only_port}", "serves_http": False, "models": ["m"]}
        stack.stages["backends"] = [
            {"name": "both", "url": urls["both"], "grpc_port": both_port},
            {"name": "http", "url": urls["http"]},
            {"name": "only", "grpc_port": only_port, **alone},
        ]
        stack.backends["only"] = only_port

    with sharing(tmp_path_factory.mktemp("grpc"), prepare) as shared:
        yield Fleet(shared, both, only)
    both.stop()
    only.stop()


@asynccontextmanager
async def channel(stack: LocalStack) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(urlsplit(stack.envoy.url).netloc) as opened:
        yield opened


def test_calls_go_to_the_servers_that_speak_grpc_and_other_requests_to_those_that_speak_http(
    fleet: Fleet,
) -> None:
    stack = fleet.shared.stack

    async def scenario() -> None:
        async with channel(stack) as opened:
            generate = opened.unary_unary(GENERATE)
            answers = [await generate(b"hello") for _ in range(16)]
            assert {b"both: hello", b"only: hello"} == set(answers)
            answered = await asyncio.gather(*(stack.ask() for _ in range(16)))
            assert {answer.status for answer in answered} == {200}
            assert {answer.headers["x-extproc-backend"] for answer in answered} == {"both", "http"}
            await stack.until_idle()

    fleet.shared.run(scenario())


def test_metadata_streams_and_trailers_pass_both_ways(fleet: Fleet) -> None:
    async def scenario() -> None:
        async with channel(fleet.shared.stack) as opened:
            call = opened.unary_unary(GENERATE)(b"hello", metadata=[("x-sent", "by the client")])
            await call
            assert dict(await call.initial_metadata())["x-first"] == "by the client"
            assert dict(await call.trailing_metadata())["x-last"] == "trailer"
            stream = opened.unary_stream(STREAM)(b"hello")
            assert [message.partition(b": ")[2] async for message in stream] == [b"hello", b""]
            assert dict(await stream.trailing_metadata())["x-last"] == "trailer"
            talk = opened.stream_stream(CONVERSE)()
            for word in (b"one", b"two"):
                await talk.write(word)
                assert (await talk.read()).endswith(word)
            await talk.done_writing()
            assert await talk.code() is grpc.StatusCode.OK

    fleet.shared.run(scenario())


def test_a_call_counts_until_it_ends_and_its_end_reaches_the_server(fleet: Fleet) -> None:
    stack = fleet.shared.stack

    async def scenario() -> None:
        for server in (fleet.both, fleet.only):
            server.may_end.clear()
        async with channel(stack) as opened:
            streams = [opened.unary_stream(STREAM)(b"hello") for _ in range(4)]
            for stream in streams:
                await stream.read()
            state = await stack.state()
            own = {backend["name"]: backend["own"] for backend in state["backends"]}
            assert own["both"] + own["only"] == 4
            assert own["http"] == 0
            for stream in streams:
                stream.cancel()
            await stack.until_idle()
            for server in (fleet.both, fleet.only):
                await until(lambda server=server: server.open_streams == 0)
                server.may_end.set()

    fleet.shared.run(scenario())


def test_a_status_that_is_the_servers_fault_counts_as_its_failure(fleet: Fleet) -> None:
    stack = fleet.shared.stack

    async def scenario() -> None:
        async with channel(stack) as opened:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await opened.unary_unary(GENERATE)(FAIL)
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
            assert failed.value.details() == "asked to fail"
            async with asyncio.timeout(10.0):
                while 'result="server_error"' not in await stack.metrics_page():
                    await asyncio.sleep(0.02)
            with pytest.raises(grpc.aio.AioRpcError) as unknown:
                await opened.unary_unary(f"/{SERVICE}/Embed")(b"")
            assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED

    fleet.shared.run(scenario())


def test_a_fleet_without_grpc_says_that_it_is_not_implemented(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a")) as stack:
            for _ in range(2):
                async with grpc.aio.insecure_channel(urlsplit(stack.envoy.url).netloc) as opened:
                    with pytest.raises(grpc.aio.AioRpcError) as refused:
                        await opened.unary_unary(GENERATE)(b"hello")
                    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
                await stack.sidecar.stop()

    asyncio.run(scenario())


def test_a_call_that_its_server_does_not_take_is_tried_on_another_one(
    start_envoy: StartEnvoy, dead_port: int
) -> None:
    server = GrpcModelServer("live")
    dead, live = (
        Endpoint(name, "127.0.0.1", port, grpc_port=port, serves_http=False)
        for name, port in (("dead", dead_port), ("live", server.start()))
    )

    def place(event: Event) -> Instruction:
        is_start = isinstance(event, HeadersReceived)
        return RouteTo(Phase.REQUEST_HEADERS, "dead_grpc") if is_start else wave_through(event)

    async def scenario() -> None:
        async with running(start_envoy, extra=(dead, live)) as stack:
            stack.sidecar.script = place
            async with grpc.aio.insecure_channel(urlsplit(stack.envoy.url).netloc) as opened:
                assert await opened.unary_unary(GENERATE)(b"hello") == b"live: hello"
            while (retry := read_retry(await stack.sidecar.next_entry())) is None:
                pass
            assert (retry.first, retry.second) == ("dead", "live")

    asyncio.run(scenario())
    server.stop()


def test_a_request_that_is_no_call_does_not_reach_a_server_that_speaks_grpc(fleet: Fleet) -> None:
    stack = fleet.shared.stack

    async def scenario() -> None:
        answer = await stack.ask(path=GENERATE)
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (404, 404)

    calls = fleet.calls
    fleet.shared.run(scenario())
    assert fleet.calls == calls


OPEN = [
    "/vllm.Generate/Generate",
    "/vllm.grpc.engine.VllmEngine/Generate",
    "/vllm.grpc.engine.VllmEngine/Embed",
    "/sglang.grpc.scheduler.SglangScheduler/Generate",
    "/sglang.grpc.scheduler.SglangScheduler/Embed",
    "/inference.GRPCInferenceService/ModelInfer",
]
CLOSED = [
    "/vllm.Control/Abort",
    "/vllm.grpc.engine.VllmEngine/Abort",
    "/vllm.grpc.engine.VllmEngine/GetServerInfo",
    "/sglang.grpc.scheduler.SglangScheduler/FlushCache",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]


@pytest.mark.parametrize("method", [*OPEN, *CLOSED])
def test_methods_that_compute_are_open_and_operators_are_closed(fleet: Fleet, method: str) -> None:
    async def scenario() -> None:
        async with channel(fleet.shared.stack) as opened:
            with pytest.raises(grpc.aio.AioRpcError) as refused:  # the server here has none of them
                await opened.unary_unary(method)(b"hello")
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert ("not open to clients" in (refused.value.details() or "")) == (method in CLOSED)

    fleet.shared.run(scenario())


def test_calls_and_requests_find_their_servers_when_the_sidecar_is_gone(fleet: Fleet) -> None:
    """The last test of the module: it ends the sidecar."""
    stack = fleet.shared.stack

    async def scenario() -> None:
        assert stack.sidecar.pid is not None
        os.kill(stack.sidecar.pid, signal.SIGKILL)
        async with channel(stack) as opened:
            generate = opened.unary_unary(GENERATE)
            assert {await generate(b"hello") for _ in range(16)} == {b"both: hello", b"only: hello"}
        answered = await asyncio.gather(*(stack.ask(chat()) for _ in range(16)))
        assert {answer.status for answer in answered} == {200}

    fleet.shared.run(scenario())
