import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from support.found_backends import Found
from support.kubernetes_api import FakeKubernetes, fake_kubernetes, inference_pool, pod
from support.patience import until

from extproc.adapters.discovery.inference_pool import InferencePoolSource
from extproc.adapters.discovery.object_watch import Pauses
from extproc.config.discovery_stage import InferencePoolDiscovery

ONE, TWO = "vllm-1 10.0.0.1:8000", "vllm-2 10.0.0.2:8000"
Scenario = Callable[[FakeKubernetes, Found], Awaitable[None]]


@pytest.fixture(autouse=True)
def access(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))


def run(tmp_path: Path, scenario: Scenario, *objects: Any) -> None:
    """A fake API with a pool and the objects, and a source that follows the pool `vllm`."""

    async def running() -> None:
        async with fake_kubernetes(tmp_path) as fake:
            for one in objects or (inference_pool(), pod("vllm-1", "10.0.0.1")):
                await fake.put(one)
            config = InferencePoolDiscovery(kind="inference_pool", name="vllm")
            source = InferencePoolSource(config, Pauses(0.01, 0.02))
            async with aclosing(source.sets()) as sets:
                await scenario(fake, Found(source, sets))

    asyncio.run(running())


async def until_watched(fake: FakeKubernetes) -> None:
    await until(lambda: fake.watched("InferencePool") == fake.watched("Pod") == 1)


def lists(fake: FakeKubernetes) -> list[dict[str, str]]:
    return [query for query in fake.requests if "watch" not in query]


def test_ready_pods_that_the_pool_selects_are_found_and_followed(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        assert await found.next() == [ONE]
        assert lists(fake) == [{"fieldSelector": "metadata.name=vllm"}, {"labelSelector": "app=vllm"}]
        await fake.put(pod("vllm-2", "10.0.0.2"))
        await found.until(ONE, TWO)
        await fake.put(pod("vllm-1", "10.0.0.1", ready=False))
        await found.until(TWO)
        await fake.put(pod("vllm-1", "10.0.0.1"))
        await found.until(ONE, TWO)
        await fake.put(pod("vllm-2", "10.0.0.2", deletionTimestamp="2026-01-01T00:00:00Z"))
        await found.until(ONE)
        await fake.put(pod("vllm-1", "10.0.0.1", labels={"app": "another"}))
        await found.until()
        await fake.delete("vllm-2", "Pod")
        assert found.source.counts.failures == 0

    others = (inference_pool("other"), pod("other-1", "10.9.9.9", labels={"app": "other"}), pod("vllm-0", ""))
    run(tmp_path, scenario, inference_pool(), pod("vllm-1", "10.0.0.1"), *others)


def test_each_port_of_each_pod_is_a_server_unless_an_annotation_names_those_that_serve(
    tmp_path: Path,
) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        assert await found.next() == ["vllm-1-rank-0 10.0.0.1:8000", "vllm-1-rank-1 10.0.0.1:8001"]
        await fake.put(pod("vllm-1", "10.0.0.1", annotations={"llm-d.ai/active-ports": "8001, 9000"}))
        await found.until("vllm-1-rank-1 10.0.0.1:8001")
        await fake.put(inference_pool(ports=(8000,)))
        await found.until()
        await fake.put(pod("vllm-1", "10.0.0.1"))
        await found.until(ONE)

    run(tmp_path, scenario, inference_pool(ports=(8000, 8001)), pod("vllm-1", "10.0.0.1"))


def test_a_deleted_pool_has_no_servers_and_one_that_is_back_has_them_again(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        assert await found.next() == [ONE]
        await until_watched(fake)
        await fake.delete("vllm", "InferencePool")
        await found.until()
        await until(lambda: not fake.watched("Pod"))
        await fake.put(inference_pool())
        await found.until(ONE)

    run(tmp_path, scenario)


def test_without_the_pool_there_are_none_and_no_pod_is_asked_for(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        assert await found.next() == []
        await until(lambda: fake.watched("InferencePool"))
        assert len(lists(fake)) == 1

    run(tmp_path, scenario, inference_pool("other"), pod("vllm-1", "10.0.0.1"))


def test_servers_stay_until_the_pods_of_another_selector_are_known(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        assert await found.next() == [ONE]
        await until_watched(fake)
        await fake.put(inference_pool(tier="gold"))
        assert await found.next() == ["vllm-3 10.0.0.3:8000"], "no set without servers came before"
        assert lists(fake)[-1] == {"labelSelector": "tier=gold"}
        await until(lambda: fake.watched("Pod") == 1)

    run(
        tmp_path,
        scenario,
        inference_pool(),
        pod("vllm-1", "10.0.0.1"),
        pod("vllm-3", "10.0.0.3", labels={"app": "new", "tier": "gold"}),
    )


def test_dropped_watches_are_taken_up_where_they_were(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        assert await found.next() == [ONE]
        await until_watched(fake)
        await fake.bookmark()
        await until(lambda: found.source.counts.answers == 4)  # two lists, two bookmarks
        bookmarked = str(fake.version)
        fake.forget()
        fake.drop()
        await fake.put(pod("vllm-2", "10.0.0.2"))
        await found.until(ONE, TWO)
        assert len(lists(fake)) == 2, "nothing was listed again"
        watches = [query["resourceVersion"] for query in fake.requests if "watch" in query]
        assert bookmarked in watches[2:]

    run(tmp_path, scenario)


def test_410_gone_leads_to_new_lists(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        assert await found.next() == [ONE]
        await until_watched(fake)
        fake.drop()
        await fake.put(pod("vllm-2", "10.0.0.2"))
        await fake.put(inference_pool(ports=(8001,)))
        fake.forget()
        await found.until("vllm-1 10.0.0.1:8001", "vllm-2 10.0.0.2:8001")

    run(tmp_path, scenario)


def test_an_api_server_that_is_down_changes_nothing_until_it_is_back(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        assert await found.next() == [ONE]
        await until_watched(fake)
        fake.is_down = True
        fake.drop()
        following = await found.nothing_until(lambda: found.source.counts.failures > 5)
        fake.is_down = False
        await fake.put(pod("vllm-2", "10.0.0.2"))
        assert await following in ([ONE], [ONE, TWO])

    run(tmp_path, scenario)


def test_a_cluster_without_the_definition_of_pools_is_a_failure(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        fake.kinds.remove("InferencePool")
        following = await found.nothing_until(lambda: found.source.counts.failures > 1)
        fake.kinds.add("InferencePool")
        assert await following == [ONE]

    run(tmp_path, scenario)


def test_a_pool_that_cannot_be_understood_changes_nothing(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        assert await found.next() == [ONE]
        await until_watched(fake)
        garbage = inference_pool()
        garbage["spec"]["targetPorts"] = "8000"
        await fake.put(garbage)
        following = await found.nothing_until(lambda: found.source.counts.failures > 1)
        await fake.put(inference_pool(ports=(9000,)))
        assert await following == ["vllm-1 10.0.0.1:9000"]

    run(tmp_path, scenario)


def test_a_bug_in_a_watch_ends_the_source_and_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        with pytest.raises(RecursionError):
            await found.next()

    def fails(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr("extproc.adapters.discovery.object_watch.ObjectApi", fails)
    run(tmp_path, scenario)
