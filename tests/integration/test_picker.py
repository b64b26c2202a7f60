"""A picker behind real Envoys: as llm-d's standalone chart, Istio, and Envoy AI Gateway configure theirs."""

import asyncio
import hashlib
import io
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from support.client_load import Load, by_status, chat
from support.local_application import application_at
from support.odd_server import BREAKS_AFTER, BREAKS_BEFORE, OddServer, ask_with_trailers
from support.patience import PATIENCE_S, wait_until
from support.picker_stack import PickerStack, picker_stack
from support.process_stack import SharedStack, running
from support.scripted_backend import ScriptedBackend, reset_at_once

CALL_TIMEOUT_S = 0.5
"""Of Istio's 10 s a response may be longer."""
BUFFERED = {"mode": "BUFFERED", "allow_mode_override": True}
GATEWAYS: Mapping[str, dict[str, Any]] = {
    "original_dst": {"allow_content_length_header": True},
    "override_host": {
        "picks": "override_host",
        "grpc_service": {"envoy_grpc": {"cluster_name": "picker"}, "timeout": f"{CALL_TIMEOUT_S}s"},
    },
    "buffered": BUFFERED,
}
WITH_USAGE = {**chat(), "stream_options": {"include_usage": True}}


@dataclass
class Echo:
    """A server that tells what it was sent, and says that it runs this many requests."""

    port: int = 0
    running: int = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Echo"]:
        routes = (web.route("*", "/{path:.*}", self._answer),)
        async with application_at(routes, max_body_bytes=64 << 20) as self.port:
            yield self

    async def _answer(self, request: web.Request) -> web.Response:
        if request.path == "/metrics":
            text = f"vllm:num_requests_running {self.running}\nvllm:num_requests_waiting 0\n"
            return web.Response(text=text)
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": "echo"}]})
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        return web.json_response({"sha": hashlib.sha256(body).hexdigest(), "headers": headers})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedStack]:
    """Two simulated servers, an echo and one that is odd, a picker, and a gateway of each kind."""
    stages = {"guard": {"max_active": 2000, "max_predicted_ttft_s": 3600.0}}
    stack = picker_stack(tmp_path_factory.mktemp("picker"), gateways=dict(GATEWAYS), stages=stages)
    echo, odd = Echo(), OddServer()
    with asyncio.Runner() as runner:
        serving = AsyncExitStack()
        for server in (echo, odd):
            runner.run(serving.enter_async_context(server.serving()))
        for name in ("vllm-1", "vllm-2"):
            stack.start_sim(name, "--speed", "8")
        stack.backends |= {"echo": echo.port, "odd": odd.port}
        try:
            runner.run(stack.start())
            yield SharedStack(stack, runner.run)
        finally:
            runner.run(stack.stop())
            runner.run(serving.aclose())


def picker_of(shared: SharedStack) -> PickerStack:
    assert isinstance(shared.stack, PickerStack)
    return shared.stack


async def outcomes(stack: PickerStack) -> dict[str, float]:
    """Finished requests by result."""
    found: dict[str, float] = {}
    for line in (await stack.metrics_page()).splitlines():
        if line.startswith("extproc_outcomes_total{"):
            result = line.partition('result="')[2].partition('"')[0]
            found[result] = found.get(result, 0.0) + float(line.rpartition(" ")[2])
    return found


async def until_outcome(stack: PickerStack, result: str, more_than: float) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await outcomes(stack)).get(result, 0.0) <= more_than:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("body", [WITH_USAGE, chat(stream=False)], ids=["streamed", "whole"])
def test_a_chat_is_answered_whole_and_its_outcome_learned(
    shared: SharedStack, gateway: str, body: dict[str, Any]
) -> None:
    stack = picker_of(shared)

    async def scenario() -> None:
        known = (await outcomes(stack)).get("ok", 0.0)
        async with stack.through(gateway):
            answer = await stack.ask(body)
        assert answer.is_complete, answer
        assert answer.backend in {"vllm-1", "vllm-2"}
        assert answer.layer == "least_load"
        await until_outcome(stack, "ok", known)
        await stack.until_idle()

    shared.run(scenario())


def test_the_first_part_of_a_stream_is_its_ttft_and_usage_is_read(shared: SharedStack) -> None:
    stack = picker_of(shared)

    async def scenario() -> None:
        for _ in range(3):
            await stack.ask(WITH_USAGE)
        await stack.until_idle()
        await stack.until_page(lambda page: 'extproc_ttft_seconds_count{backend="vllm-' in page)

    shared.run(scenario())


def test_a_response_outlasts_the_time_that_istio_gives_a_call(shared: SharedStack) -> None:
    stack = picker_of(shared)

    async def scenario() -> None:
        asked_s = asyncio.get_running_loop().time()
        async with stack.through("override_host"):
            assert (await stack.ask(chat(max_tokens=150))).is_complete
        assert asyncio.get_running_loop().time() - asked_s > 1.5 * CALL_TIMEOUT_S

    shared.run(scenario())


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("size", [0, 1 << 20, 8 << 20])
def test_a_body_of_any_size_reaches_the_server_as_it_was_sent(
    shared: SharedStack, gateway: str, size: int
) -> None:
    stack = picker_of(shared)
    data = json.dumps({"model": "echo", "prompt": "x" * size}).encode()
    spoofed = {"x-gateway-destination-endpoint": "127.0.0.1:1", "x-prefiller-host-port": "127.0.0.1:1"}

    async def scenario() -> None:
        async with stack.through(gateway):
            answer = await stack.ask(path="/v1/completions", data=io.BytesIO(data), headers=spoofed)
        assert answer.status == 200
        seen = json.loads(answer.body)
        assert seen["sha"] == hashlib.sha256(data).hexdigest()
        if gateway != "override_host":  # an Envoy that is not told to keep it sends the body in chunks
            assert seen["headers"]["content-length"] == str(len(data))
        assert seen["headers"]["x-gateway-destination-endpoint"] == f"127.0.0.1:{stack.backends['echo']}"
        assert "x-prefiller-host-port" not in seen["headers"]
        await stack.until_idle()

    shared.run(scenario())


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_requests_without_a_body_are_answered(shared: SharedStack, gateway: str) -> None:
    stack = picker_of(shared)

    async def scenario() -> None:
        url = stack.envoys[gateway].url
        async with stack.session.get(f"{url}/v1/models") as response:
            listed = await response.json()
        assert [each["id"] for each in listed["data"]] == ["echo", "odd", "sim"]
        async with stack.session.get(f"{url}/version") as response:
            assert response.status in {200, 404}
        await stack.until_idle()

    shared.run(scenario())


def test_a_model_that_is_not_served_is_404_in_openais_form(shared: SharedStack) -> None:
    stack = picker_of(shared)

    async def scenario() -> None:
        answer = await stack.ask(chat(model="other"))
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (404, 404)
        assert len(answer.headers["x-request-id"]) == 36

    shared.run(scenario())


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_clients_that_leave_leave_nothing_behind(shared: SharedStack, gateway: str) -> None:
    stack = picker_of(shared)

    async def leave() -> None:
        url = f"{stack.envoys[gateway].url}/v1/chat/completions"
        async with stack.session.post(url, json=chat(max_tokens=2000)) as response:
            await response.content.readany()
            assert any(backend["own"] for backend in (await stack.state())["backends"])

    async def scenario() -> None:
        await asyncio.gather(*(leave() for _ in range(5)))
        await stack.until_idle()

    shared.run(scenario())


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_trailers_pass_both_ways(shared: SharedStack, gateway: str) -> None:
    stack = picker_of(shared)

    async def scenario() -> None:
        port = int(stack.envoys[gateway].url.rpartition(":")[2])
        answer = await ask_with_trailers(port, b'{"model": "odd", ', b'"prompt": "hello"}')
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b'{"x-sent": "yes"}' in answer
        assert answer.endswith(b"x-returned: yes\r\n\r\n")
        await stack.until_idle()

    shared.run(scenario())


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_trailers_without_a_body_pass_where_bodies_stream(shared: SharedStack, gateway: str) -> None:
    stack = picker_of(shared)

    async def scenario() -> None:
        answer = await ask_with_trailers(int(stack.envoys[gateway].url.rpartition(":")[2]))
        assert (b"trailers, and no body" if gateway == "buffered" else b"x-extproc-backend: ") in answer
        await stack.until_idle()

    shared.run(scenario())


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_an_answer_of_the_gateways_own_reaches_the_client(shared: SharedStack, gateway: str) -> None:
    """An Envoy that allows no upgrades refuses one before it asks the picker, and shows it that answer."""
    stack = picker_of(shared)
    upgrade = {"connection": "upgrade", "upgrade": "websocket"}

    async def scenario() -> None:
        url = f"{stack.envoys[gateway].url}/v1/realtime"
        async with stack.session.get(url, headers=upgrade) as response:
            assert response.status == 403
        await stack.until_idle()

    shared.run(scenario())


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_a_server_that_breaks_off_leaves_nothing_behind(shared: SharedStack, gateway: str) -> None:
    stack = picker_of(shared)

    async def scenario() -> None:
        url = f"{stack.envoys[gateway].url}/v1/completions"
        async with stack.session.post(url, json={"model": "odd", "prompt": BREAKS_BEFORE}) as response:
            # An Envoy that has endpoints tries any other one.
            assert response.status == 503 or gateway == "override_host"
        async with stack.session.post(url, json={"model": "odd", "prompt": BREAKS_AFTER}) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        await stack.until_idle()

    shared.run(scenario())


def test_many_streams_at_once(shared: SharedStack) -> None:
    stack = picker_of(shared)

    async def scenario() -> None:
        answers = await stack.ask_many(150, 150, chat(max_tokens=20))
        assert all(answer.is_complete for answer in answers)
        await stack.until_idle()
        assert "extproc_protocol_errors_total 0.0" in await stack.metrics_page()

    shared.run(scenario())


def test_autoscalers_find_their_metrics(shared: SharedStack) -> None:
    stack = picker_of(shared)

    async def scenario() -> None:
        assert (await stack.ask(WITH_USAGE)).is_complete
        await stack.until_idle()
        page = await stack.metrics_page()
        model = '{model_name="sim",target_model_name="sim"}'
        for name in ("request_total", "output_tokens_count", "prompt_cached_tokens_count"):
            assert f"inference_objective_{name}{model}" in page
        assert "llm_d_epp_scheduler_e2e_duration_seconds_count" in page
        assert 'inference_pool_ready_pods{name=""} 4.0' in page
        assert 'inference_objective_running_requests{model_name="sim"}' in page
        assert "llm_d_epp_flow_control_queue_size 0.0" in page

    shared.run(scenario())


def test_what_is_too_much_for_now_waits_in_the_queue_and_beyond_it_is_429(tmp_path: Path) -> None:
    stages = {"guard": {"max_active": 2}, "admission": {"mode": "queue", "queue": {"max_waiting": 3}}}
    stack = picker_stack(tmp_path, gateways=dict(GATEWAYS), stages=stages)
    stack.start_sim("vllm-1", "--speed", "8")

    async def scenario() -> None:
        async with running(stack):
            full = 0
            for number, gateway in enumerate(GATEWAYS, 1):
                async with stack.through(gateway):
                    answers = await stack.ask_many(12, 12, chat(max_tokens=20))
                assert by_status(answers).keys() == {200, 429}
                refused = next(answer for answer in answers if answer.status == 429)
                assert refused.headers["x-llm-d-request-dropped-reason"] == "rejected-saturated"
                assert int(refused.headers["retry-after"]) >= 1
                assert json.loads(refused.body)["error"]["type"] == "overloaded_error"
                ended = (await stack.until_idle())["queue"]["ended"]
                full += 12 - by_status(answers)[200]
                assert (ended["let_in"], ended["full"]) == (3 * number, full)

    asyncio.run(scenario())


async def restart(stack: PickerStack) -> None:
    """Start the picker again, and wait until the gateways have found it."""
    stack.sidecar.start()
    await stack.until_routable(4)
    await stack.until_gateways_see(1)
    assert (await stack.ask()).is_complete
    await stack.until_idle()


def test_a_picker_that_is_killed_costs_what_is_in_flight_and_nothing_after_its_restart(
    shared: SharedStack,
) -> None:
    stack = picker_of(shared)

    async def scenario() -> None:
        async with AsyncExitStack() as open_streams:
            begun = []
            for envoy in stack.envoys.values():
                post = stack.session.post(f"{envoy.url}/v1/chat/completions", json=chat(max_tokens=3000))
                begun.append(await open_streams.enter_async_context(post))
                await begun[-1].content.readany()
            assert stack.sidecar.pid is not None
            os.kill(stack.sidecar.pid, signal.SIGKILL)
            await asyncio.to_thread(stack.sidecar.stop, 5.0)
            for response in begun:
                with pytest.raises(aiohttp.ClientError):
                    await response.read()
        for gateway in GATEWAYS:
            async with stack.through(gateway):
                assert (await stack.ask()).status >= 500  # nothing fails open once bodies are streamed
        await restart(stack)

    shared.run(scenario())


def test_a_picker_that_is_stopped_brings_streams_to_their_end(shared: SharedStack) -> None:
    stack = picker_of(shared)

    async def scenario() -> None:
        asking = asyncio.create_task(stack.ask(chat(max_tokens=200)))
        await stack.until(lambda state: any(each["own"] for each in state["backends"]))
        assert stack.sidecar.pid is not None
        os.kill(stack.sidecar.pid, signal.SIGTERM)
        assert (await asking).is_complete
        await asyncio.to_thread(stack.sidecar.stop, 10.0)
        await restart(stack)

    shared.run(scenario())


@pytest.mark.long
@pytest.mark.parametrize("gateway", GATEWAYS)
def test_a_thousand_streams_at_once(shared: SharedStack, gateway: str) -> None:
    stack = picker_of(shared)

    async def scenario() -> None:
        async with stack.through(gateway):
            answers = await stack.ask_many(1000, 1000, chat(max_tokens=50))
        odd = [(each.status, each.headers, each.body[-200:]) for each in answers if not each.is_complete]
        assert odd == []
        await stack.until_idle()

    shared.run(scenario())


@pytest.mark.long
def test_of_two_pickers_one_is_drained_and_no_request_fails(tmp_path: Path) -> None:
    stack = picker_stack(tmp_path, options=("--drain-timeout", "5s"))
    other = stack.another_picker()
    for name in ("vllm-1", "vllm-2"):
        stack.start_sim(name, "--speed", "8")

    async def scenario() -> None:
        async with running(stack):
            other.start()
            await stack.until_gateways_see(2)
            async with Load(stack, 8, chat(max_tokens=20)) as load:
                await load.until(50)
                await stack.until(lambda state: any(each["foreign"] for each in state["backends"]))
                assert stack.sidecar.pid is not None
                os.kill(stack.sidecar.pid, signal.SIGTERM)
                await asyncio.to_thread(wait_until, lambda: stack.sidecar.ending() is not None)
                await load.until(50)
            assert load.failures == []
        await asyncio.to_thread(other.stop, 10.0)

    asyncio.run(scenario())


@pytest.mark.long
def test_a_gateway_with_a_list_tries_the_next_server_where_one_breaks_off(tmp_path: Path) -> None:
    gateways: dict[str, dict[str, Any]] = {"override_host": {"picks": "override_host"}}
    stack = picker_stack(tmp_path, gateways=gateways, stages={"gateway": {"max_endpoints": 2}})
    stack.start_sim("vllm-1", "--speed", "8")

    async def scenario() -> None:
        async with ScriptedBackend().serving() as broken:
            broken.on_request = reset_at_once
            stack.backends["broken"] = broken.port
            async with running(stack):
                answers = await stack.ask_many(20, 2)
                assert all(answer.is_complete for answer in answers)
                assert broken.requests > 0
                await stack.until_idle()

    asyncio.run(scenario())


@pytest.mark.long
def test_an_envoy_goes_on_alone_where_calls_end_with_the_request(tmp_path: Path) -> None:
    stack = picker_stack(tmp_path, stages={"gateway": {"ends_after_request": True}})
    stack.start_sim("vllm-1", "--speed", "8")

    async def scenario() -> None:
        async with running(stack):
            answers = await stack.ask_many(20, 4, chat(max_tokens=40))
            assert all(answer.is_complete for answer in answers)
            assert await outcomes(stack) == {}
            await stack.until_idle()

    asyncio.run(scenario())


@pytest.mark.long
def test_a_busy_server_is_sent_where_to_have_a_long_prompt_prefilled(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    stages = {"guard": {"max_active": 32}}
    discovery = {"kind": "llm_d_file", "path": str(path)}
    stack = picker_stack(
        tmp_path, gateways=dict(GATEWAYS), stages=stages, discovery=discovery, found_at_start=2
    )

    async def named_by(gateway: str, prompt: str) -> str | None:
        async with stack.through(gateway):
            body = {"model": "echo", "prompt": prompt}
            headers = {"x-prefiller-host-port": "6.6.6.6:1"}
            url = f"{stack.envoy.url}/v1/completions"
            async with stack.session.post(url, json=body, headers=headers) as response:
                found: str | None = (await response.json())["headers"].get("x-prefiller-host-port")
                return found

    async def scenario() -> None:
        async with Echo(running=24).serving() as decoding, Echo().serving() as prefilling:
            stack.backends |= {"decode": decoding.port, "prefill": prefilling.port}
            endpoints = [
                {"name": name, "address": "127.0.0.1", "port": str(port), "labels": {"llm-d.ai/role": name}}
                for name, port in stack.backends.items()
            ]
            path.write_text(json.dumps({"endpoints": endpoints}))
            async with running(stack):
                for number, gateway in enumerate(GATEWAYS):
                    long = f"{number} " + "word " * 20_000
                    assert await named_by(gateway, long) == f"127.0.0.1:{prefilling.port}"
                    assert await named_by(gateway, "hello") is None
                await stack.until_idle()
                assert await stack.metric("extproc_prefilled_elsewhere_total") == len(GATEWAYS)

    asyncio.run(scenario())
