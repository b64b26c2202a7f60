"""A whole picker for an InferencePool, behind the real Envoy of deploy/gateway-api/standalone."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from support.envoy_process import RunningEnvoy
from support.in_loop import in_loop
from support.kubernetes_api import FakeKubernetes, fake_kubernetes, inference_pool, pod, pool_object
from support.manifests import DEPLOY
from support.ports import free_port
from support.scripted_backend import MODELS, PAGE

from extproc.commands.picker_options import PickerOptions
from extproc.commands.picker_setup import config_of, setup_of
from extproc.picker import Picker

ENVOY_YAML = DEPLOY / "gateway-api" / "standalone" / "envoy.yaml"
HOSTS = {"vllm-1": "127.0.0.2", "vllm-2": "127.0.0.3"}


@dataclass
class Server:
    """A vLLM server, as far as the router looks at it; it answers with its name and what it was asked."""

    name: str
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def complete(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.asked.append({"model": asked["model"], "headers": dict(request.headers)})
        return web.json_response({"server": self.name, "model": asked["model"]})

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=PAGE)

    async def models(self, _: web.Request) -> web.Response:
        return web.Response(body=MODELS, content_type="application/json")

    async def start(self, host: str, port: int) -> web.AppRunner:
        application = web.Application()
        application.router.add_post("/v1/completions", self.complete)
        application.router.add_get("/metrics", self.metrics)
        application.router.add_get("/v1/models", self.models)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        return runner


@dataclass
class Cluster:
    """The API, the servers and the gateway of one cluster."""

    api: FakeKubernetes
    servers: dict[str, Server]
    envoy: RunningEnvoy
    client: aiohttp.ClientSession

    async def ask(self, model: str = "sim", path: str = "/v1/completions", **headers: str) -> tuple[int, Any]:
        """Status and content of an answer; of the header that names the backend, its content."""
        body = json.dumps({"model": model, "prompt": "hello"})
        async with self.client.post(self.envoy.url + path, data=body, headers=headers) as response:
            found = await response.json(content_type=None) if response.status == 200 else None
            if found is not None:
                found["backend"] = response.headers.get("x-extproc-backend")
            return response.status, found


def envoy_config(grpc_port: int, server_port: int) -> str:
    """The shipped configuration, with addresses of this machine."""
    text = ENVOY_YAML.read_text()
    moved = {
        "{address: 0.0.0.0, port_value: 8080}": "{address: 127.0.0.1, port_value: 0}",
        "{address: 127.0.0.1, port_value: 9901}": "{address: 127.0.0.1, port_value: 0}",
        "{address: vllm-epp, port_value: 9002}": f"{{address: 127.0.0.1, port_value: {grpc_port}}}",
        "{address: vllm, port_value: 8000}": f"{{address: 127.0.0.2, port_value: {server_port}}}",
    }
    for shipped, here in moved.items():
        assert text.count(shipped) == 1
        text = text.replace(shipped, here)
    return text


@asynccontextmanager
async def cluster(directory: Path) -> AsyncIterator[Cluster]:
    """Two pods of a pool, its picker with TLS, and Envoy before it."""
    async with AsyncExitStack() as exits:
        api = await exits.enter_async_context(fake_kubernetes(directory))
        port, grpc_port = free_port(), free_port()
        servers = {name: Server(name) for name in HOSTS}
        for name, server in servers.items():
            exits.push_async_callback((await server.start(HOSTS[name], port)).cleanup)
            await api.put(pod(name, HOSTS[name]))
        await api.put(inference_pool(ports=(port,)))
        options = PickerOptions(
            pool_name="vllm", grpc_port=grpc_port, grpc_health_port=free_port(), metrics_port=free_port()
        )
        config, _ = config_of(options, directory)
        gateway = config.gateway.model_copy(update={"drain_s": 0.0, "finish_s": 1.0})
        config = config.model_copy(update={"gateway": gateway})
        stop = asyncio.Event()
        picker = Picker(config, None, setup_of(options), np.random.default_rng(0))
        running = asyncio.create_task(picker.run(stop))
        exits.push_async_callback(lambda: asyncio.wait([running]))
        exits.callback(stop.set)
        envoy = await asyncio.to_thread(RunningEnvoy, directory / "envoy", envoy_config(grpc_port, port))
        exits.callback(envoy.stop)
        client = await exits.enter_async_context(aiohttp.ClientSession())
        found = Cluster(api, servers, envoy, client)
        async with asyncio.timeout(30):
            while not ((await found.ask())[1] or {}).get("backend"):
                await asyncio.sleep(0.05)
        yield found


@in_loop
async def test_a_pool_is_picked_for_as_its_objects_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    async with cluster(tmp_path) as here:
        status, answer = await here.ask(**{"x-gateway-destination-endpoint": "127.0.0.1:1"})
        assert status == 200, "a client cannot choose where its request goes"
        assert answer["backend"] == answer["server"] in HOSTS

        assert (await here.ask(path="/metrics"))[0] == 404
        targets = [{"modelRewrite": "sim"}]
        matches = [{"model": {"value": "public"}}]
        await here.api.put(
            pool_object("InferenceModelRewrite", "r", {"rules": [{"matches": matches, "targets": targets}]})
        )
        async with asyncio.timeout(30):
            while (await here.ask("public"))[0] != 200:
                await asyncio.sleep(0.05)
        assert (await here.ask("public"))[1]["model"] == "sim"

        await here.api.put(pod("vllm-1", HOSTS["vllm-1"], labels={"llm-d.ai/role": "prefill"}))
        async with asyncio.timeout(30):
            while {(await here.ask())[1]["server"] for _ in range(8)} != {"vllm-2"}:
                pass

        await asyncio.to_thread(here.envoy.until_stat, "cluster.picker.membership_healthy", 1)
        await here.api.delete("vllm", "InferencePool")
        async with asyncio.timeout(30):
            while (await here.ask())[0] != 503:
                await asyncio.sleep(0.05)
