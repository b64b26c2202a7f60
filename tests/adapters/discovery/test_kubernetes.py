import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from support.found_backends import Found
from support.kubernetes_api import FakeKubernetes, endpoint, endpoint_slice, fake_kubernetes
from support.patience import until

from extproc.adapters.discovery.kubernetes import KubernetesSource
from extproc.adapters.discovery.object_watch import Pauses
from extproc.config.discovery_stage import KubernetesDiscovery

ONE, TWO, THREE = (endpoint(f"vllm-{n}", f"10.0.0.{n}") for n in (1, 2, 3))
Scenario = Callable[[FakeKubernetes, Found], Awaitable[None]]


@pytest.fixture(autouse=True)
def access(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))


def run(tmp_path: Path, scenario: Scenario, *endpoints: Any, **fields: Any) -> None:
    """A fake API with one slice of these endpoints, and a source that follows it."""

    async def running() -> None:
        settings = KubernetesDiscovery(
            **({"kind": "kubernetes", "selector": "kubernetes.io/service-name=vllm"} | fields)
        )
        async with fake_kubernetes(tmp_path) as fake:
            await fake.put(endpoint_slice("vllm-a", endpoints))
            await fake.put(endpoint_slice("other-a", [endpoint("other-1", "10.9.9.9")], service="other"))
            source = KubernetesSource(settings, Pauses(0.01, 0.02))
            async with aclosing(source.sets()) as sets:
                await scenario(fake, Found(source, sets))

    asyncio.run(running())


def test_ready_pods_are_found_and_followed(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        assert await found.next() == ["vllm-1 10.0.0.1:8000"]
        await fake.put(endpoint_slice("vllm-a", [ONE, TWO]))
        assert await found.next() == ["vllm-1 10.0.0.1:8000", "vllm-2 10.0.0.2:8000"]
        await fake.put(endpoint_slice("vllm-b", [THREE]))
        assert len(await found.next()) == 3
        await fake.delete("vllm-a")
        assert await found.next() == ["vllm-3 10.0.0.3:8000"]
        lists = [query for query in fake.requests if "watch" not in query]
        assert lists == [{"labelSelector": "kubernetes.io/service-name=vllm"}]

    run(tmp_path, scenario, ONE, endpoint("vllm-9", "10.0.0.9", ready=False))


def test_a_pod_that_terminates_or_is_not_ready_leaves_and_comes_back_with_its_address(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        assert len(await found.next()) == 2
        leaving = endpoint("vllm-2", "10.0.0.2", ready=True, terminating=True)
        await fake.put(endpoint_slice("vllm-a", [ONE, leaving]))
        assert await found.next() == ["vllm-1 10.0.0.1:8000"]
        await fake.put(endpoint_slice("vllm-a", [ONE, TWO]))
        assert len(await found.next()) == 2
        await fake.put(endpoint_slice("vllm-a", [ONE, endpoint("vllm-2", "10.0.0.2", ready=False)]))
        assert await found.next() == ["vllm-1 10.0.0.1:8000"]

    run(tmp_path, scenario, ONE, TWO)


def test_a_dropped_watch_is_taken_up_where_it_was(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        await found.next()
        await fake.put(endpoint_slice("vllm-a", [ONE, TWO]))
        await found.next()
        heard = str(fake.version)
        following = await found.nothing_until(lambda: fake.watching)
        fake.drop()
        await fake.put(endpoint_slice("vllm-a", [TWO]))  # while nobody listens, or just again
        assert await following == ["vllm-2 10.0.0.2:8000"]
        watches = [query["resourceVersion"] for query in fake.requests if "watch" in query]
        assert watches[1:] == [heard]
        assert sum("watch" not in query for query in fake.requests) == 1, "nothing was listed again"
        assert found.source.counts.failures == 1

    run(tmp_path, scenario, ONE)


def test_a_watch_that_ends_in_order_goes_on_and_is_no_failure(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        await found.next()
        following = await found.nothing_until(lambda: fake.watching)
        await fake.end_watches()
        await until(lambda: sum("watch" in query for query in fake.requests) >= 2)
        await fake.put(endpoint_slice("vllm-a", [ONE, TWO]))
        assert len(await following) == 2
        assert found.source.counts.failures == 0

    run(tmp_path, scenario, ONE)


def test_bookmarks_are_asked_for_and_a_watch_is_taken_up_at_the_last(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        await found.next()
        await fake.put(endpoint_slice("other-a", [], service="other"))
        await fake.bookmark()
        assert await found.next() == ["vllm-1 10.0.0.1:8000"]
        bookmarked = fake.version
        following = await found.nothing_until(lambda: fake.watching)
        fake.forget()
        fake.drop()
        await until(lambda: fake.requests[-1].get("resourceVersion") == str(bookmarked) and fake.watching)
        await fake.put(endpoint_slice("vllm-a", [ONE, TWO]))
        assert len(await following) == 2
        assert sum("watch" not in query for query in fake.requests) == 1, "it was not too old: no list"

    run(tmp_path, scenario, ONE)


@pytest.mark.parametrize("as_status", [False, True], ids=["as an event", "as a status"])
def test_410_gone_leads_to_a_new_list(as_status: bool, tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        fake.gone_as_status = as_status
        await found.next()
        await until_watched_by(found, fake)
        fake.drop()
        await fake.put(endpoint_slice("vllm-a", [TWO]))
        await fake.put(endpoint_slice("vllm-b", [THREE]))
        fake.forget()
        await found.until("vllm-2 10.0.0.2:8000", "vllm-3 10.0.0.3:8000")
        assert sum("watch" not in query for query in fake.requests) == 2
        await fake.delete("vllm-b")
        await found.until("vllm-2 10.0.0.2:8000")

    run(tmp_path, scenario, ONE)


async def until_watched_by(found: Found, fake: FakeKubernetes) -> None:
    """The source only gets on while it is asked: have it open its watch, and hear a bookmark."""
    following = await found.nothing_until(lambda: fake.watching)
    await fake.bookmark()
    await following


def test_an_api_server_that_is_down_changes_nothing_until_it_is_back(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        await found.next()
        await until_watched_by(found, fake)
        fake.is_down = True
        fake.drop()
        following = await found.nothing_until(lambda: found.source.counts.failures > 3)
        fake.is_down = False
        await fake.put(endpoint_slice("vllm-a", [TWO]))
        assert await following == ["vllm-2 10.0.0.2:8000"]

    run(tmp_path, scenario, ONE)


@pytest.mark.parametrize(
    "garbage",
    [
        *(b"", b"<html>", b"{}", b'{"metadata": {}, "items": 5}', b"\xff\xfe", b"[" * 2000),
        *(b'{"x": ' + b"[" * 2000, b'{"metadata": null}'),
    ],
)
def test_garbage_is_a_failure_and_changes_nothing(garbage: bytes, tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        await found.next()
        await until_watched_by(found, fake)
        fake.garbage = garbage
        fake.drop()
        following = await found.nothing_until(lambda: len(fake.requests) > 5)
        fake.garbage = None
        await fake.put(endpoint_slice("vllm-a", [TWO]))
        assert "vllm-2 10.0.0.2:8000" in await following

    run(tmp_path, scenario, ONE)


def test_a_refused_token_is_read_again(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        await found.next()
        await until_watched_by(found, fake)
        fake.token = "another token"
        (tmp_path / "token").write_text(fake.token)
        fake.drop()
        await fake.put(endpoint_slice("vllm-a", [TWO]))
        await found.until("vllm-2 10.0.0.2:8000")
        assert fake.refused == 1

    run(tmp_path, scenario, ONE)


def test_a_refusal_is_logged_with_what_the_server_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        fake.token = "nobody's"
        following = await found.nothing_until(lambda: found.source.counts.failures > 1)
        fake.token = "good token"
        await following

    with caplog.at_level(logging.WARNING):
        run(tmp_path, scenario, ONE)
    assert "kubernetes_failed" in caplog.text
    assert "status 401 Unauthorized" in caplog.text


def test_without_access_it_waits_for_it(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: Found) -> None:
        kubeconfig = (tmp_path / "kubeconfig").read_text()
        (tmp_path / "kubeconfig").unlink()
        following = await found.nothing_until(lambda: found.source.counts.failures > 1)
        (tmp_path / "kubeconfig").write_text(kubeconfig)
        assert await following == ["vllm-1 10.0.0.1:8000"]

    run(tmp_path, scenario, ONE)
