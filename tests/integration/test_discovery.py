"""Backends that are found: they join and leave under load, through the real Envoy, and no request fails."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.client_load import Load, chat
from support.fault_drill import signalled
from support.kubernetes_api import endpoint, endpoint_slice, fake_kubernetes
from support.name_server import HOST, NameServer, name_server
from support.patience import PATIENCE_S, wait_until
from support.ports import free_port
from support.process_stack import LocalStack, running
from support.warm_process import WarmProcess

from extproc.adapters.envoy.cluster_file import ClusterFile

ONE, TWO, THREE = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


def start_sims(stack: LocalStack) -> int:
    """Three simulated servers on three addresses, and one port, as pods are; the port."""
    port = free_port()
    for address in (ONE, TWO, THREE):
        stack.start_sim(address, "--speed", "4", "--host", address, port=port)
    stack.found_at_start = 2
    return port


def discover_by_dns(stack: LocalStack, server: NameServer, port: int) -> None:
    stack.discovery = {
        "kind": "dns",
        "host": HOST,
        "port": port,
        "nameservers": [server.address],
        "interval_s": 0.2,
        "timeout_s": 1.0,
    }


def hosts(state: dict[str, Any]) -> set[str]:
    return {backend["address"].rpartition(":")[0] for backend in state["backends"] if backend["is_routable"]}


def names(*addresses: str) -> set[str]:
    return {f"vllm-{address.replace('.', '-')}" for address in addresses}


def test_a_backend_joins_and_another_leaves_by_dns_under_load(stack: LocalStack) -> None:
    async def scenario(server: NameServer) -> None:
        async with running(stack), Load(stack, 12, chat(max_tokens=20)) as load:
            await load.until(40)
            assert {answer.backend for answer in load.answers} == names(ONE, TWO)
            server.addresses = [ONE, TWO, THREE]
            await stack.until(lambda state: hosts(state) == {ONE, TWO, THREE})
            await load.until(60)
            server.addresses = [TWO, THREE]
            await stack.until(lambda state: len(state["backends"]) == 2 and hosts(state) == {TWO, THREE})
            before = len(load.answers)
            await load.until(60)
        assert not load.failures
        assert names(THREE) < {answer.backend for answer in load.answers[:before]}
        assert {answer.backend for answer in load.answers[before + 12 :]} == names(TWO, THREE)

    with name_server() as server:
        server.addresses = [ONE, TWO]
        discover_by_dns(stack, server, start_sims(stack))
        asyncio.run(scenario(server))


def test_answers_that_flap_fail_or_are_empty_fail_no_request(stack: LocalStack) -> None:
    async def scenario(server: NameServer) -> None:
        async with running(stack), Load(stack, 8, chat(max_tokens=20)) as load:
            for addresses in ([ONE], [TWO, ONE], [TWO], [ONE, TWO, THREE], [], None, [ONE, TWO]):
                server.addresses = addresses
                asked = len(server.asked)
                await load.until(20)
                await stack.until(lambda _, asked=asked: len(server.asked) > asked + 2)
            server.failing = {"A": "SERVFAIL", "AAAA": "silence"}
            await load.until(60)
            assert hosts(await stack.state()) >= {ONE, TWO}
        assert not load.failures

    with name_server() as server:
        server.addresses = [ONE, TWO]
        discover_by_dns(stack, server, start_sims(stack))
        asyncio.run(scenario(server))


def test_a_sidecar_that_restarts_without_dns_serves_those_it_knew(stack: LocalStack) -> None:
    async def scenario(server: NameServer) -> None:
        async with running(stack), Load(stack, 8, chat(max_tokens=20)) as load:
            await load.until(20)
            server.failing = {"A": "SERVFAIL", "AAAA": "SERVFAIL"}
            await signalled(stack.sidecar, signal.SIGKILL)
            stack.sidecar.start()
            await stack.until_routable(2)
            await load.until(40)
        assert not load.failures
        assert {load.answers[-1].backend, *names(ONE, TWO)} == names(ONE, TWO)

    with name_server() as server:
        server.addresses = [ONE, TWO]
        discover_by_dns(stack, server, start_sims(stack))
        asyncio.run(scenario(server))


def test_pods_become_ready_and_terminate_under_load(
    stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    port = start_sims(stack)
    stack.discovery = {"kind": "kubernetes", "selector": "kubernetes.io/service-name=vllm"}

    def pods(**conditions: Any) -> Any:
        said = {"a": {}, "b": {}, "c": {}} | conditions
        addresses = zip(said, (ONE, TWO, THREE), strict=True)
        return endpoint_slice("vllm", [endpoint(pod, ip, **said[pod]) for pod, ip in addresses], port=port)

    async def scenario() -> None:
        async with fake_kubernetes(tmp_path) as fake:
            await fake.put(pods(c={"ready": False}))
            async with running(stack), Load(stack, 12, chat(max_tokens=20)) as load:
                await load.until(40)
                assert {answer.backend for answer in load.answers} == {"a", "b"}
                await fake.put(pods())
                await stack.until(lambda state: hosts(state) == {ONE, TWO, THREE})
                await load.until(60)
                fake.drop()
                await fake.put(pods(a={"terminating": True}))
                await stack.until(lambda state: [b["name"] for b in state["backends"]] == ["b", "c"])
                before = len(load.answers)
                await load.until(60)
            assert not load.failures
            assert {answer.backend for answer in load.answers[before + 12 :]} == {"b", "c"}

    asyncio.run(scenario())


def test_a_sidecar_is_ready_and_envoy_can_start_only_when_backends_are_known(stack: LocalStack) -> None:
    async def status(path: str) -> int:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.get(f"http://127.0.0.1:{stack.http_port}{path}") as response:
                    return response.status
            except aiohttp.ClientError:
                return 0

    async def until(path: str, expected: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await status(path) != expected:
                await asyncio.sleep(0.02)

    async def scenario(server: NameServer) -> None:
        stack.cds_path.parent.mkdir()
        stack.write_config()
        stack.sidecar.start()
        try:
            await until("/healthz", 200)
            asked = len(server.asked)
            await asyncio.to_thread(wait_until, lambda: len(server.asked) >= asked + 4)
            assert await status("/readyz") == 503
            assert not stack.cds_path.exists()
            server.failing = {}
            await until("/readyz", 200)
            assert stack.cds_path.exists()
        finally:
            await asyncio.to_thread(stack.sidecar.stop, 5.0)

    with name_server() as server:
        server.failing = {"A": "SERVFAIL", "AAAA": "SERVFAIL"}
        discover_by_dns(stack, server, free_port())
        asyncio.run(scenario(server))


def test_clusters_are_written_without_a_sidecar_too(stack: LocalStack) -> None:
    def clusters() -> set[str]:
        return {backend.name for backend in ClusterFile(stack.cds_path).read_known()}

    with name_server() as server:
        server.addresses = [ONE, TWO]
        discover_by_dns(stack, server, free_port())
        stack.cds_path.parent.mkdir()
        stack.write_config()
        command = [sys.executable, "-m", "extproc", "clusters", "--config", str(stack.config_path)]
        writer = WarmProcess("clusters", command, stack.directory / "clusters.log")
        writer.start()
        try:
            wait_until(lambda: clusters() == names(ONE, TWO))
            server.addresses = [TWO, THREE]
            wait_until(lambda: clusters() == names(TWO, THREE))
        finally:
            writer.stop(5.0)
        assert writer.ending() == "ended with status 0"
