import asyncio
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from operator import attrgetter
from typing import Any

import aiohttp
import pytest
import uvloop
from prometheus_client.parser import text_string_to_metric_families
from support.patience import until
from support.ports import free_port

from extproc.errors import StackError
from extproc.lab.simulated_vllm.vllm_options import SimOptions
from extproc.lab.simulated_vllm.vllm_server import SimServer, open_sim, serve_sim
from extproc.request.api import APIS

FAST = 1000.0
STALLED = 1e-6
"""A step takes hours: what is in the first one stays there for the whole test."""
BUSY = 1.0
"""An answer of `LONG` takes minutes, a step less than a second."""

CHAT = {"messages": [{"role": "user", "content": "12345678"}], "max_tokens": 5}
COMPLETION = {"prompt": [1] * 100, "max_tokens": 5}
LONG = {"prompt": [1] * 100, "max_tokens": 5000}


class Client:
    """An HTTP client of one server."""

    def __init__(self, server: SimServer, session: aiohttp.ClientSession) -> None:
        self.engine = server.engine
        self.port = server.port
        self.session = session
        self.streams: list[aiohttp.ClientResponse] = []

    def request(self, method: str, path: str, **arguments: Any) -> Any:
        return self.session.request(method, f"http://127.0.0.1:{self.port}{path}", **arguments)

    async def post(self, path: str, body: object) -> tuple[int, Any]:
        async with self.request("POST", path, json=body) as response:
            return response.status, await response.json()

    async def events(self, path: str, body: dict[str, Any]) -> list[Any]:
        """The data of all events of a stream, parsed, with the end mark as None."""
        async with self.request("POST", path, json={**body, "stream": True}) as response:
            assert response.status == 200
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            text = (await response.read()).decode()
        assert text.endswith("\n\n")
        data = [event.split("data: ", 1)[1] for event in text[:-2].split("\n\n")]
        return [None if item == "[DONE]" else json.loads(item) for item in data]

    async def open_stream(self, body: dict[str, Any]) -> aiohttp.ClientResponse:
        """A stream that is closed with the test."""
        response: aiohttp.ClientResponse = await self.request(
            "POST", "/v1/completions", json={**body, "stream": True}
        )
        self.streams.append(response)
        return response

    async def metrics(self) -> dict[str, float]:
        """All samples by name, `finished_reason` and `le` appended."""
        async with self.request("GET", "/metrics") as response:
            text = await response.text()
        return {
            sample.name
            + "".join(
                f" {sample.labels[key]}" for key in ("finished_reason", "le") if key in sample.labels
            ): (sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


def with_sim(test: Callable[[Client], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with (
            asyncio.timeout(30),
            open_sim(SimOptions(port=0, **{"speed": FAST, **options})) as server,
            aiohttp.ClientSession() as session,
        ):
            client = Client(server, session)
            await test(client)
            for response in client.streams:
                response.close()

    uvloop.run(main())


def test_chat_completion():
    async def test(client: Client) -> None:
        status, answer = await client.post("/v1/chat/completions", CHAT)
        assert status == 200
        assert answer["object"] == "chat.completion"
        assert answer["model"] == "sim"
        [choice] = answer["choices"]
        assert choice["message"] == {"role": "assistant", "content": " token" * 5}
        assert choice["finish_reason"] == "length"
        assert answer["usage"] == {"prompt_tokens": 2, "total_tokens": 7, "completion_tokens": 5}

    with_sim(test)


@pytest.mark.parametrize("api", [api for api in APIS if api.answer_shape], ids=attrgetter("kind"))
def test_every_known_api_is_answered_and_streams_if_it_generates(api):
    async def test(client: Client) -> None:
        body = {api.prompt_field: [{"role": "user", "content": "hello"}]}
        status, answer = await client.post(api.path, body)
        assert (status, answer["model"]) == (200, "sim")
        async with client.request("POST", api.path, json={**body, "stream": True}) as response:
            is_stream = response.headers["content-type"].startswith("text/event-stream")
        assert is_stream == api.is_generation

    with_sim(test)


def test_chat_stream_is_role_tokens_and_end_mark():
    async def test(client: Client) -> None:
        *chunks, done = await client.events("/v1/chat/completions", CHAT)
        assert done is None
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        assert len({chunk["id"] for chunk in chunks}) == 1
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        assert deltas == [{"role": "assistant", "content": ""}] + [{"content": " token"}] * 5
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 5 + ["length"]

    with_sim(test)


def test_messages_have_anthropics_shape():
    asked = {"messages": [{"role": "user", "content": "four"}], "system": "be brief", "max_tokens": 3}

    async def test(client: Client) -> None:
        status, answer = await client.post("/v1/messages", asked)
        assert (status, answer["type"], answer["stop_reason"]) == (200, "message", "max_tokens")
        assert answer["content"] == [{"type": "text", "text": " token" * 3}]
        assert answer["usage"] == {"input_tokens": 3, "output_tokens": 3}
        events = await client.events("/v1/messages", asked)
        assert [event["type"] for event in events] == [
            "message_start",
            "content_block_start",
            *["content_block_delta"] * 3,
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]

    with_sim(test)


def test_usage_comes_in_a_last_chunk_without_choices():
    async def test(client: Client) -> None:
        body = {**CHAT, "stream_options": {"include_usage": True}}
        *chunks, usage, done = await client.events("/v1/chat/completions", body)
        assert done is None
        assert len(chunks) == 6
        assert usage["choices"] == []
        assert usage["usage"] == {"prompt_tokens": 2, "total_tokens": 7, "completion_tokens": 5}
        assert all("usage" not in chunk for chunk in chunks)

    with_sim(test)


def test_completion():
    async def test(client: Client) -> None:
        status, answer = await client.post("/v1/completions", COMPLETION)
        assert status == 200
        assert answer["object"] == "text_completion"
        assert answer["choices"][0]["text"] == " token" * 5
        assert answer["usage"] == {"prompt_tokens": 100, "total_tokens": 105, "completion_tokens": 5}

    with_sim(test)


@pytest.mark.parametrize("tokens", [1, 2, 200])
def test_completion_stream_has_one_chunk_per_token(tokens):
    async def test(client: Client) -> None:
        *chunks, done = await client.events("/v1/completions", {"prompt": "x", "max_tokens": tokens})
        assert done is None
        assert [chunk["choices"][0]["text"] for chunk in chunks] == [" token"] * tokens
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (tokens - 1) + [
            "length"
        ]

    with_sim(test)


def test_embeddings_have_one_vector_per_input():
    async def test(client: Client) -> None:
        status, answer = await client.post("/v1/embeddings", {"input": ["12345678", "1234"]})
        assert status == 200
        assert [vector["index"] for vector in answer["data"]] == [0, 1]
        assert all(isinstance(number, float) for vector in answer["data"] for number in vector["embedding"])
        assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3, "completion_tokens": 0}
        assert client.engine.counters.generation_tokens == 0

    with_sim(test)


def test_responses():
    async def test(client: Client) -> None:
        status, answer = await client.post("/v1/responses", {"input": "12345678", "max_output_tokens": 3})
        assert status == 200
        assert answer["object"] == "response"
        assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
        assert answer["output"][0]["content"][0]["text"] == " token" * 3
        assert answer["usage"] == {"input_tokens": 2, "output_tokens": 3, "total_tokens": 5}

    with_sim(test)


def test_responses_stream():
    async def test(client: Client) -> None:
        events = await client.events("/v1/responses", {"input": "12345678", "max_output_tokens": 3})
        assert [event["type"] for event in events] == [
            "response.created",
            "response.in_progress",
            *["response.output_text.delta"] * 3,
            "response.completed",
        ]
        assert events[0]["response"]["status"] == "in_progress"
        assert events[-1]["response"]["usage"] == {"input_tokens": 2, "output_tokens": 3, "total_tokens": 5}

    with_sim(test)


def test_all_models_are_listed_and_served():
    async def test(client: Client) -> None:
        async with client.request("GET", "/v1/models") as response:
            listed = await response.json()
        assert [(model["id"], model["max_model_len"]) for model in listed["data"]] == [("a", 500), ("b", 500)]
        for model in ("a", "b"):
            status, answer = await client.post("/v1/completions", {**COMPLETION, "model": model})
            assert (status, answer["model"]) == (200, model)

    with_sim(test, models=("a", "b"), max_model_len=500)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("HEAD", "/health", 200),
        ("HEAD", "/metrics", 200),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/nothing", 404),
    ],
)
def test_status_by_method_and_path(method, path, status):
    async def test(client: Client) -> None:
        async with client.request(method, path) as response:
            assert response.status == status

    with_sim(test)


def test_errors_have_vllms_form():
    async def test(client: Client) -> None:
        assert await client.post("/v1/chat/completions", {**CHAT, "model": "x"}) == (
            404,
            {
                "error": {
                    "message": "The model `x` does not exist.",
                    "type": "NotFoundError",
                    "param": "model",
                    "code": 404,
                }
            },
        )
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"):
            status, answer = await client.post(path, {})
            assert (status, answer["error"]["code"]) == (400, 400)
            async with client.request("POST", path, data=b"not json") as response:
                assert response.status == 400
        status, answer = await client.post("/v1/completions", {"prompt": "x" * 8000, "stream": True})
        assert (status, answer["error"]["param"]) == (400, "input_tokens")

    with_sim(test, max_model_len=1000)


def test_headers_of_a_stream_come_before_its_request_is_scheduled():
    async def test(client: Client) -> None:
        for _ in range(2):
            response = await client.open_stream(COMPLETION)
            assert response.status == 200
        await until(lambda: client.engine.running == 1 and client.engine.waiting == 1)
        assert client.engine.counters.generation_tokens == 0

    with_sim(test, speed=STALLED)


def test_a_client_that_leaves_a_stream_frees_its_slot():
    async def test(client: Client) -> None:
        response = await client.open_stream(LONG)
        await until(lambda: client.engine.running == 1)
        assert client.engine.kv_cache_fraction > 0
        response.close()
        await until(lambda: client.engine.running == 0)
        assert client.engine.kv_cache_fraction == 0
        assert client.engine.counters.finished["abort"] == 1

    with_sim(test, speed=STALLED)


def test_a_client_that_leaves_before_its_answer_frees_its_slot():
    async def test(client: Client) -> None:
        task = asyncio.create_task(client.post("/v1/completions", LONG))
        await until(lambda: client.engine.running == 1)
        task.cancel()
        await until(lambda: client.engine.running == 0)
        assert client.engine.counters.finished["abort"] == 1

    with_sim(test, speed=STALLED)


def test_a_client_that_leaves_while_waiting_is_not_served():
    async def test(client: Client) -> None:
        await client.open_stream(LONG)
        await until(lambda: client.engine.running == 1)
        response = await client.open_stream(LONG)
        await until(lambda: client.engine.waiting == 1)
        response.close()
        await until(lambda: client.engine.waiting == 0)
        assert client.engine.running == 1

    with_sim(test, speed=STALLED)


def test_gauges_tell_running_waiting_and_memory():
    async def test(client: Client) -> None:
        for token in range(5):
            await client.open_stream(LONG | {"prompt": [token] * 100})
        await until(lambda: client.engine.running == 2 and client.engine.waiting == 3)
        metrics = await client.metrics()
        assert metrics["vllm:num_requests_running"] == 2
        assert metrics["vllm:num_requests_waiting"] == 3
        # A prompt of 100 tokens takes 7 blocks of 16; the cache has 512 of them.
        assert metrics["vllm:kv_cache_usage_perc"] == pytest.approx(14 / 512, rel=0.3)

    with_sim(test, speed=BUSY, max_num_seqs=2, kv_cache_tokens=8192)


def test_late_gauges_do_not_show_yet_what_runs():
    async def test(client: Client) -> None:
        await client.open_stream(LONG)
        await until(lambda: client.engine.running == 1)
        assert (await client.metrics())["vllm:num_requests_running"] == 0

    with_sim(test, speed=STALLED, gauge_delay_s=60.0)


def test_requests_stuck_before_the_engine_are_in_no_gauge():
    async def test(client: Client) -> None:
        for _ in range(5):
            await client.open_stream(LONG)
        await until(lambda: client.engine.running == 2)
        assert client.engine.stuck == 3
        metrics = await client.metrics()
        assert metrics["vllm:num_requests_running"] == 2
        assert metrics["vllm:num_requests_waiting"] == 0

    with_sim(test, speed=BUSY, http_limit=2)


def test_a_slot_before_the_engine_is_given_on():
    async def test(client: Client) -> None:
        first = await client.open_stream(LONG)
        await client.open_stream(LONG)
        await until(lambda: client.engine.stuck == 1)
        first.close()
        await until(lambda: client.engine.stuck == 0)
        assert client.engine.running == 1

    with_sim(test, speed=BUSY, http_limit=1)


def test_counters_add_up():
    async def test(client: Client) -> None:
        for _ in range(3):
            await client.post("/v1/completions", COMPLETION)
        await client.post("/v1/embeddings", {"input": [1] * 7})
        metrics = await client.metrics()
        assert metrics["vllm:prompt_tokens_total"] == 307
        assert metrics["vllm:generation_tokens_total"] == 15
        assert metrics["vllm:request_success_total length"] == 3
        assert metrics["vllm:request_success_total stop"] == 1
        assert metrics["vllm:request_success_total abort"] == 0
        assert metrics["vllm:time_to_first_token_seconds_count"] == 4
        assert metrics["vllm:time_to_first_token_seconds_bucket +Inf"] == 4
        assert metrics["vllm:prefix_cache_queries_total"] == 307
        assert metrics["vllm:prefix_cache_hits_total"] == 2 * 96
        assert metrics["vllm:num_preemptions_total"] == 0
        assert metrics["vllm:num_requests_running"] == 0

    with_sim(test)


def test_series_are_labelled_as_vllms_are():
    async def test(client: Client) -> None:
        async with client.request("GET", "/metrics") as response:
            text = await response.text()
            assert response.headers["content-type"].startswith("text/plain; version=")
        lines = text.splitlines()
        assert 'vllm:num_requests_running{engine="0",model_name="a"} 0.0' in lines
        assert "# TYPE vllm:num_requests_running gauge" in lines
        assert "# TYPE vllm:generation_tokens_total counter" in lines
        assert 'vllm:request_success_total{engine="0",finished_reason="length",model_name="a"} 0.0' in lines
        assert 'vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="a"} 0.0' in lines
        [config] = [line for line in lines if line.startswith("vllm:cache_config_info{")]
        for label in ('block_size="16"', 'num_gpu_blocks="512"', 'kv_cache_size_tokens="8192"'):
            assert label in config

    with_sim(test, models=("a", "b"), kv_cache_tokens=8192)


def test_a_connection_is_reused_and_a_chunked_request_body_is_read():
    async def body() -> Any:
        yield b'{"prompt": "12345678", '
        yield b'"max_tokens": 2, "stream": true}'

    async def test(client: Client) -> None:
        ports = set()
        for _ in range(3):
            async with client.request("POST", "/v1/completions", data=body()) as response:
                assert response.connection is not None
                ports.add(response.connection.transport.get_extra_info("sockname")[1])
                assert (await response.read()).count(b"data: ") == 3
        assert len(ports) == 1

    with_sim(test)


def raw_request(version: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body)
    head = f"POST /v1/completions HTTP/{version}\r\nhost: sim\r\ncontent-length: {len(content)}\r\n"
    return f"{head}connection: close\r\n\r\n{content}".encode()


def test_an_http_1_0_client_gets_an_unframed_stream():
    async def test(client: Client) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(raw_request("1.0", {**COMPLETION, "stream": True}))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert b"chunked" not in head.lower()
        assert body.startswith(b"data: {")
        assert body.endswith(b"data: [DONE]\n\n")
        assert body.count(b"data: ") == 6
        writer.close()

    with_sim(test)


def test_a_client_that_does_not_read_is_owed_tokens_not_memory():
    tokens = 30_000

    async def test(client: Client) -> None:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", client.port))
        connection.sendall(raw_request("1.1", {"prompt": [1], "max_tokens": tokens, "stream": True}))
        await until(lambda: client.engine.counters.finished["length"] == 1)
        reader, writer = await asyncio.open_connection(sock=connection)
        received = await reader.read()
        assert received.count(b" token") == tokens
        assert received.count(b"data: ") < tokens / 2
        assert b"data: [DONE]" in received
        assert received.endswith(b"\r\n0\r\n\r\n")
        writer.close()

    with_sim(test, profile="a100-8b", speed=1e6, max_model_len=40_000)


def test_the_asked_share_of_requests_fails_and_the_seed_decides_which():
    def statuses(seed: int) -> list[int]:
        seen: list[int] = []

        async def test(client: Client) -> None:
            for _ in range(120):
                status, answer = await client.post("/v1/completions", {"prompt": "x", "max_tokens": 1})
                assert status == 200 or answer["error"]["code"] == 500
                seen.append(status)

        with_sim(test, fail_fraction=1 / 3, seed=seed)
        return seen

    first = statuses(seed=1)
    assert 25 <= first.count(500) <= 55
    assert first == statuses(seed=1)
    assert first != statuses(seed=2)


def test_a_faster_server_is_done_while_a_slower_one_works():
    async def slow(slow_client: Client) -> None:
        async with open_sim(SimOptions(port=0, speed=FAST)) as fast_server:
            fast_client = Client(fast_server, slow_client.session)
            response = await slow_client.request(
                "POST", "/v1/completions", json={**COMPLETION, "stream": True}
            )
            await fast_client.post("/v1/completions", COMPLETION)
            assert slow_client.engine.counters.generation_tokens == 0
            response.close()

    with_sim(slow, speed=STALLED)


def test_a_server_gets_another_speed_while_it_works():
    async def test(client: Client) -> None:
        slow = asyncio.create_task(client.post("/v1/completions", LONG))
        await until(lambda: client.engine.counters.generation_tokens)
        assert await client.post("/sim/speed", {"speed": FAST}) == (200, {"speed": FAST})
        status, _ = await slow
        assert status == 200

    with_sim(test, speed=BUSY)


@pytest.mark.parametrize("body", [{"speed": 0}, {"speed": -1}, {"speed": "fast"}, {}, [], {"speed": None}])
def test_an_impossible_speed_is_refused_and_changes_nothing(body):
    async def test(client: Client) -> None:
        status, answer = await client.post("/sim/speed", body)
        assert (status, answer["error"]["code"]) == (400, 400)
        status, _ = await client.post("/v1/completions", LONG)
        assert status == 200

    with_sim(test)


def test_a_taken_port_is_a_stack_error():
    async def test(client: Client) -> None:
        with pytest.raises(StackError, match=f"cannot listen on 127.0.0.1:{client.port}: .*in use"):
            await serve_sim(SimOptions(port=client.port))

    with_sim(test)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server(number):
    async def main() -> None:
        async with asyncio.timeout(10):
            await serve_sim(SimOptions(port=0), ready=lambda: os.kill(os.getpid(), number))

    uvloop.run(main())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_cuts_streams_off():
    async def main() -> None:
        port = free_port()
        ready = asyncio.Event()
        server = asyncio.create_task(serve_sim(SimOptions(port=port, speed=STALLED), ready.set))
        await ready.wait()
        async with aiohttp.ClientSession() as session:
            response = await session.post(
                f"http://127.0.0.1:{port}/v1/completions", json={**COMPLETION, "stream": True}
            )
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        await server

    uvloop.run(main())


def test_cancelling_ends_the_server_and_frees_the_port():
    async def main() -> None:
        port = free_port()
        for _ in range(2):
            ready = asyncio.Event()
            server = asyncio.create_task(serve_sim(SimOptions(port=port), ready.set))
            await ready.wait()
            server.cancel()
            with pytest.raises(asyncio.CancelledError):
                await server

    uvloop.run(main())


def test_a_full_queue_refuses_a_request_by_its_status_and_a_stream_by_an_event() -> None:
    async def test(client: Client) -> None:
        await client.open_stream(LONG)
        await until(lambda: client.engine.running == 1)
        await client.open_stream(LONG)
        await until(lambda: client.engine.waiting == 1)
        status, refusal = await client.post("/v1/completions", COMPLETION)
        assert (status, refusal["error"]["code"]) == (503, 503)
        assert await client.events("/v1/completions", COMPLETION) == [refusal, None]

    with_sim(test, speed=BUSY, max_num_seqs=1, max_num_queued_reqs=1)
