"""An Envoy that has all backends in one cluster goes by the address that the sidecar tells it.

So does Envoy Gateway's.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

import yaml
from support.process_stack import LocalStack, running

POLICIES = "type.googleapis.com/envoy.extensions.load_balancing_policies"


def one_cluster(ports: list[int]) -> Callable[[str], str]:
    """The shipped configuration with one cluster of these ports, and a route to it alone."""

    def edit(text: str) -> str:
        document = yaml.safe_load(text)
        static = document["static_resources"]
        (chain,) = static["listeners"][0]["filter_chains"]
        manager = chain["filters"][0]["typed_config"]
        route = {"match": {"prefix": "/"}, "route": {"cluster": "vllm", "timeout": "0s"}}
        manager["route_config"]["virtual_hosts"][0]["routes"] = [route]
        endpoints = [
            {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
            for port in ports
        ]
        fallback = {
            "name": "envoy.load_balancing_policies.least_request",
            "typed_config": {"@type": f"{POLICIES}.least_request.v3.LeastRequest"},
        }
        override = {
            "@type": f"{POLICIES}.override_host.v3.OverrideHost",
            "override_host_sources": [{"header": "x-extproc-address"}],
            "fallback_policy": {"policies": [{"typed_extension_config": fallback}]},
        }
        policy = {"name": "envoy.load_balancing_policies.override_host", "typed_config": override}
        static["clusters"].append(
            {
                "name": "vllm",
                "connect_timeout": "1s",
                "load_assignment": {"cluster_name": "vllm", "endpoints": [{"lb_endpoints": endpoints}]},
                "load_balancing_policy": {"policies": [{"typed_extension_config": policy}]},
            }
        )
        return yaml.safe_dump(document)

    return edit


def served(stack: LocalStack) -> Counter[int]:
    """How many requests each port has got from Envoy."""
    clusters = stack.envoy.admin("/clusters?format=json")["cluster_statuses"]
    (hosts,) = (cluster["host_statuses"] for cluster in clusters if cluster["name"] == "vllm")
    return Counter(
        {
            host["address"]["socket_address"]["port_value"]: int(stat.get("value", 0))
            for host in hosts
            for stat in host["stats"]
            if stat["name"] == "rq_total"
        }
    )


def test_requests_go_where_the_sidecar_says(stack: LocalStack) -> None:
    for name, speed in (("vllm-1", "4"), ("vllm-2", "2"), ("vllm-3", "1")):
        stack.start_sim(name, "--speed", speed)
    stack.edit_envoy = one_cluster(list(stack.backends.values()))

    async def scenario() -> None:
        async with running(stack):
            answers = await stack.ask_many(60, concurrency=8)
            assert all(answer.is_complete for answer in answers)
            chosen = Counter(stack.backends[answer.backend] for answer in answers)
            assert len(chosen) == 3
            assert await asyncio.to_thread(served, stack) == chosen

    asyncio.run(scenario())


def test_a_dead_choice_is_answered_by_another_and_clients_cannot_choose(stack: LocalStack) -> None:
    for name in ("vllm-1", "vllm-2", "vllm-3"):
        stack.start_sim(name, "--speed", "4")
    stack.edit_envoy = one_cluster(list(stack.backends.values()))

    async def scenario() -> None:
        async with running(stack):
            stack.sims["vllm-1"].stop(0.0)
            answers = await stack.ask_many(40, concurrency=4)
            assert all(answer.is_complete for answer in answers)
            await asyncio.to_thread(stack.sidecar.stop, 5.0)
            before = await asyncio.to_thread(served, stack)
            wanted, other = (stack.backends[name] for name in ("vllm-2", "vllm-3"))
            spoofed = {"x-extproc-address": f"127.0.0.1:{wanted}"}
            assert all([(await stack.ask(headers=spoofed)).is_complete for _ in range(20)])
            assert (await asyncio.to_thread(served, stack))[other] > before[other]

    asyncio.run(scenario())
