"""A whole picker for an InferencePool, behind the real Envoy of deploy/gateway-api/standalone."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence, Sized
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import yaml
from aiohttp import web
from support.envoy_process import RunningEnvoy
from support.in_loop import in_loop
from support.kubernetes_api import FakeKubernetes, fake_kubernetes, inference_pool, pod, pool_object
from support.manifests import DEPLOY
from support.patience import until
from support.ports import free_port
from support.scripted_backend import MODELS, PAGE

from extproc.commands.picker_options import PickerOptions
from extproc.commands.picker_setup import config_of, setup_of
from extproc.config.replicas_stage import ReplicasConfig
from extproc.picker_app import Picker

ENVOY_YAML = DEPLOY / "gateway-api" / "standalone" / "envoy.yaml"
DRAIN_S = "1.5s"
HOSTS = {"vllm-1": "127.0.0.2", "vllm-2": "127.0.0.3"}


@dataclass
class Server:
    """A vLLM server, as far as a router looks at it; it answers with its name and the model it was sent."""

    name: str
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: int = 0

    async def complete(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.in_flight += 1
        await self.answers.wait()
        self.in_flight -= 1
        return web.json_response({"server": self.name, "model": asked["model"]})

    async def metrics(self, _: web.Request) -> web.Response:
        running = b'vllm:num_requests_running{engine="0"} %d.0' % self.in_flight
        return web.Response(body=PAGE.replace(b'vllm:num_requests_running{engine="0"} 0.0', running))

    async def models(self, _: web.Request) -> web.Response:
        return web.Response(body=MODELS, content_type="application/json")

    async def start(self, host: str, port: int) -> web.AppRunner:
        application = web.Application()
        application.router.add_post("/v1/completions", self.complete)
        application.router.add_get("/metrics", self.metrics)
        application.router.add_get("/v1/models", self.models)
        self.answers.set()
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        return runner


class PickerReplica:
    """One of the pickers of the pool, in this process."""

    def __init__(self, directory: Path, port: int, replicas: ReplicasConfig) -> None:
        options = PickerOptions(
            pool_name="vllm",
            grpc_port=port,
            grpc_health_port=free_port(),
            metrics_port=free_port(),
            drain_timeout=DRAIN_S,
        )
        directory.mkdir()
        config = config_of(options)[0].model_copy(update={"replicas": replicas})
        setup = setup_of(options, directory)
        self._stop = asyncio.Event()
        self.picker = Picker(setup.adapted(config), None, setup, np.random.default_rng(port))
        self.running = asyncio.create_task(self.picker.run(self._stop))

    async def stop(self) -> None:
        """SIGTERM, and its end."""
        self._stop.set()
        await self.running

    @property
    def heard_of(self) -> Sized:
        """The other pickers, by their reports."""
        replicas = self.picker._core.replicas
        assert replicas is not None
        return replicas

    def loads(self) -> list[tuple[int, float]]:
        """Requests in flight on each server: its own, and those of others."""
        members = self.picker._core.registry.members
        return [(member.own, member.foreign) for member in members]


@dataclass
class Cluster:
    """The API, the servers, the pickers and the gateway of one cluster."""

    api: FakeKubernetes
    servers: dict[str, Server]
    replicas: list[PickerReplica]
    envoy: RunningEnvoy
    client: aiohttp.ClientSession

    async def ask(self, model: str = "sim", path: str = "/v1/completions", **headers: str) -> tuple[int, Any]:
        """Status and content of an answer, with the backend that its header names."""
        body = json.dumps({"model": model, "prompt": "hello"})
        async with self.client.post(self.envoy.url + path, data=body, headers=headers) as response:
            found = await response.json(content_type=None) if response.status == 200 else None
            if found is not None:
                found["backend"] = response.headers.get("x-extproc-backend")
            return response.status, found


def envoy_config(grpc_ports: Sequence[int], server_port: int) -> str:
    """The shipped configuration with addresses of this machine, and a faster look at the pickers' health."""
    document = yaml.safe_load(ENVOY_YAML.read_text())
    static = document["static_resources"]

    def address(host: str, port: int) -> dict[str, Any]:
        return {"address": {"socket_address": {"address": host, "port_value": port}}}

    document["admin"] = address("127.0.0.1", 0)
    static["listeners"][0] |= address("127.0.0.1", 0)
    clusters = {cluster["name"]: cluster for cluster in static["clusters"]}
    for name, found in {
        "picker": [("127.0.0.1", port) for port in grpc_ports],
        "vllm": [("127.0.0.2", server_port)],
    }.items():
        endpoints = [{"endpoint": address(*each)} for each in found]
        clusters[name]["load_assignment"]["endpoints"] = [{"lb_endpoints": endpoints}]
    clusters["picker"]["health_checks"][0] |= {"interval": "0.1s", "no_traffic_interval": "0.1s"}
    return yaml.safe_dump(document)


@asynccontextmanager
async def cluster(directory: Path, pickers: int = 1) -> AsyncIterator[Cluster]:
    """Two pods of a pool, its pickers with TLS, and Envoy before them."""
    async with AsyncExitStack() as exits:
        api = await exits.enter_async_context(fake_kubernetes(directory))
        port, grpc_ports = free_port(), [free_port() for _ in range(pickers)]
        servers = {name: Server(name) for name in HOSTS}
        for name, server in servers.items():
            exits.push_async_callback((await server.start(HOSTS[name], port)).cleanup)
            await api.put(pod(name, HOSTS[name]))
        await api.put(inference_pool(ports=(port,)))
        hosts, reports_port = tuple(f"127.0.0.{4 + number}" for number in range(pickers)), free_port()
        replicas = [
            PickerReplica(
                directory / host, each, ReplicasConfig(hosts=hosts, address=f"{host}:{reports_port}")
            )
            for host, each in zip(hosts, grpc_ports, strict=True)
        ]
        for replica in replicas:
            exits.push_async_callback(replica.stop)
        envoy = await asyncio.to_thread(RunningEnvoy, directory / "envoy", envoy_config(grpc_ports, port))
        exits.callback(envoy.stop)
        client = await exits.enter_async_context(aiohttp.ClientSession())
        found = Cluster(api, servers, replicas, envoy, client)
        await asyncio.to_thread(envoy.until_stat, "cluster.picker.membership_healthy", pickers)
        async with asyncio.timeout(30):
            while envoy.stat("cluster.picker.upstream_cx_total") < pickers:
                await found.ask()
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

        await here.api.delete("vllm", "InferencePool")
        async with asyncio.timeout(30):
            while (await here.ask())[0] != 503:
                await asyncio.sleep(0.05)


@in_loop
async def test_two_pickers_see_each_others_load_and_one_can_go_without_a_failed_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    async with cluster(tmp_path, pickers=2) as here:
        for server in here.servers.values():
            server.answers.clear()
        asked = [asyncio.create_task(here.ask()) for _ in range(20)]
        await until(lambda: sum(server.in_flight for server in here.servers.values()) == 20)

        def sees_all(replica: PickerReplica) -> bool:
            loads = replica.loads()
            own, foreign = sum(each[0] for each in loads), sum(each[1] for each in loads)
            return 0 < own < 20 and own + foreign == 20

        await until(lambda: all(sees_all(replica) for replica in here.replicas))
        await until(lambda: all(len(replica.heard_of) == 1 for replica in here.replicas))
        leaving, staying = here.replicas
        gone = asyncio.create_task(leaving.stop())
        for server in here.servers.values():
            server.answers.set()
        while not gone.done():
            asked += [asyncio.create_task(here.ask()) for _ in range(4)]
            await asyncio.sleep(0.05)
        answers = await asyncio.gather(*asked)
        assert {status for status, _ in answers} == {200}
        assert all(answer["backend"] for _, answer in answers), "none went past the pickers"
        assert all(own == 0 for replica in (leaving, staying) for own, _ in replica.loads())
