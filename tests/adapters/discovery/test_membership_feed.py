import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.build import a_core, core_rules
from support.patience import until

from extproc.adapters.discovery import membership_feed as membership
from extproc.adapters.discovery.membership_feed import MembershipFeed
from extproc.adapters.discovery.source import DiscoveryCounts
from extproc.adapters.envoy.cluster_document import cds_document
from extproc.adapters.envoy.cluster_file import ClusterFile
from extproc.fleet.backend import Backend, Lifecycle
from extproc.fleet.endpoint import Endpoint, KnownBackends

SETTLE_S = 0.05
A, B, C = (Endpoint(name, "10.0.0.1", port, frozenset({"m"})) for port, name in enumerate("abc", start=1))


class Told:
    """A source that finds what it is told."""

    def __init__(self) -> None:
        self.counts = DiscoveryCounts()
        self.queue: asyncio.Queue[Sequence[Endpoint]] = asyncio.Queue()

    async def sets(self) -> AsyncGenerator[Sequence[Endpoint], None]:
        while True:
            yield await self.queue.get()


class Feed:
    def __init__(
        self, directory: Path, grace_s: float = 60.0, limit: int = 8, settle_s: float = SETTLE_S
    ) -> None:
        self.core = a_core(rules=core_rules(settle_s=settle_s))
        self.source = Told()
        self.cds_path = directory / "cds.json"
        known = KnownBackends(grace_s, limit)
        clusters = ClusterFile(self.cds_path)
        self.feed = MembershipFeed(self.source, known, self.core, clusters, lambda: None)

    def find(self, *backends: Endpoint) -> None:
        self.source.queue.put_nowait(backends)

    @property
    def members(self) -> dict[str, Lifecycle]:
        return {member.name: member.lifecycle for member in self.core.registry.members}

    @property
    def clusters(self) -> set[str]:
        resources = json.loads(self.cds_path.read_text())["resources"]
        return {cluster["name"] for cluster in resources if "cluster_type" in cluster}


def test_the_event_loop_turns_while_clusters_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet of thousands takes a second to write."""
    is_turning = threading.Event()
    write = ClusterFile.write

    def write_slowly(self: ClusterFile, *clusters: Any) -> None:
        assert is_turning.wait(5.0), "the event loop stands still"
        write(self, *clusters)

    monkeypatch.setattr(ClusterFile, "write", write_slowly)

    async def scenario() -> None:
        feed = Feed(tmp_path)
        tasks = [asyncio.create_task(work) for work in (feed.feed.follow(), feed.feed.advance())]
        feed.find(A, B)
        await until(lambda: feed.members)
        is_turning.set()
        await until(lambda: set(feed.members.values()) == {Lifecycle.ACTIVE})
        assert feed.clusters == {"a", "b"}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())


def test_clusters_that_have_not_changed_are_not_even_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparing those of 1,000 members would take 10 ms, several times a second."""
    looks, writes = [], []
    is_there, write = ClusterFile.is_there, ClusterFile.write

    def look(self: ClusterFile) -> bool:
        looks.append(1)
        return is_there(self)

    def write_counted(self: ClusterFile, *clusters: Any) -> None:
        writes.append(1)
        write(self, *clusters)

    async def scenario(feed: Feed) -> None:
        feed.find(A, B)
        await until(lambda: set(feed.members.values()) == {Lifecycle.ACTIVE})
        looks.clear()
        await until(lambda: len(looks) > 2)  # what follows the settling is written by now
        looks.clear()
        writes.clear()
        await until(lambda: len(looks) > 2)
        assert not writes
        feed.cds_path.unlink()
        await until(feed.cds_path.exists)

    monkeypatch.setattr(membership, "INTERVAL_S", 0.01)
    monkeypatch.setattr(ClusterFile, "is_there", look)
    monkeypatch.setattr(ClusterFile, "write", write_counted)
    run(lambda: Feed(tmp_path), scenario)


def run(feed: Callable[[], Feed], scenario: Callable[[Feed], Awaitable[None]]) -> None:
    async def running() -> None:
        subject = feed()
        subject.feed.start()
        tasks = [asyncio.create_task(work) for work in (subject.feed.follow(), subject.feed.advance())]
        try:
            await scenario(subject)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(running())


def test_where_clusters_need_no_time_members_can_be_chosen_from_the_first_moment_on(tmp_path: Path) -> None:
    async def scenario(feed: Feed) -> None:
        feed.find(A)
        await feed.feed.is_known.wait()
        assert feed.members == {"a": Lifecycle.ACTIVE}

    run(lambda: Feed(tmp_path, settle_s=0.0), scenario)


async def busy_b_beside_a(feed: Feed) -> Backend:
    """Both are there, and `b`, which is returned, has a request in flight."""
    feed.find(A, B)
    await until(lambda: list(feed.members.values()) == [Lifecycle.ACTIVE] * 2)
    b = feed.core.registry.backend_named("b")
    assert b is not None
    b.reserve(time.monotonic())
    return b


def test_a_found_backend_gets_its_cluster_before_it_may_be_chosen(tmp_path: Path) -> None:
    async def scenario(feed: Feed) -> None:
        assert not feed.feed.is_known.is_set()
        assert not feed.cds_path.exists(), "an Envoy that started now would refuse everything"
        feed.find(A)
        await until(lambda: feed.members.get("a") is Lifecycle.ACTIVE)
        assert feed.clusters == {"a"}
        assert feed.feed.is_known.is_set()

    run(lambda: Feed(tmp_path), scenario)


def test_one_that_is_found_no_more_drains_and_then_loses_its_cluster(tmp_path: Path) -> None:
    async def scenario(feed: Feed) -> None:
        b = await busy_b_beside_a(feed)
        feed.find(A)
        await until(lambda: feed.members["b"] is Lifecycle.DRAINING)
        assert feed.clusters == {"a", "b"}
        b.release(time.monotonic())
        await until(lambda: feed.members.keys() == {"a"} and feed.clusters == {"a"})

    run(lambda: Feed(tmp_path), scenario)


def test_after_a_restart_those_are_served_that_were_known_until_discovery_answers(tmp_path: Path) -> None:
    (tmp_path / "cds.json").write_bytes(cds_document([A, B], "1"))

    async def scenario(feed: Feed) -> None:
        assert feed.members == {"a": Lifecycle.ACTIVE, "b": Lifecycle.ACTIVE}
        assert feed.feed.is_known.is_set()
        feed.find(B, C)
        await until(lambda: feed.members.keys() == {"b", "c"})
        b = feed.core.registry.backend_named("b")
        assert b is not None
        assert b.models == {"m"}, "what the file does not know is learned"

    run(lambda: Feed(tmp_path), scenario)


def test_an_empty_answer_is_doubted_and_then_believed(tmp_path: Path) -> None:
    async def scenario(feed: Feed) -> None:
        feed.find(A)
        await until(lambda: feed.members)
        feed.find()
        await until(lambda: feed.feed.is_doubting)
        assert feed.members["a"] is not Lifecycle.DRAINING
        await until(lambda: not feed.members and feed.clusters == set())

    run(lambda: Feed(tmp_path, grace_s=1.0), scenario)


def test_an_empty_answer_at_the_start_counts(tmp_path: Path) -> None:
    async def scenario(feed: Feed) -> None:
        feed.find()
        await until(feed.feed.is_known.is_set)
        assert feed.members == {}

    run(lambda: Feed(tmp_path), scenario)


def test_one_that_flaps_stays_a_member(tmp_path: Path) -> None:
    async def scenario(feed: Feed) -> None:
        b = await busy_b_beside_a(feed)
        for _ in range(20):
            feed.find(A)
            feed.find(A, B)
        await until(feed.source.queue.empty)
        assert feed.core.registry.backend_named("b") is b
        assert feed.members["b"] is Lifecycle.ACTIVE

    run(lambda: Feed(tmp_path), scenario)


def test_clusters_that_cannot_be_written_let_membership_stand_still(tmp_path: Path) -> None:
    directory = tmp_path / "later"

    directory.mkdir()
    (directory / "cds.json").mkdir()  # not to be replaced by a file

    async def scenario(feed: Feed) -> None:
        feed.find(A)
        await until(lambda: feed.members)
        # For as long as it takes where they can be: that nothing happens has no end to wait for.
        await asyncio.sleep(SETTLE_S + 2 * membership.INTERVAL_S)
        assert feed.members["a"] is Lifecycle.JOINING
        (directory / "cds.json").rmdir()
        await until(lambda: feed.members["a"] is Lifecycle.ACTIVE)

    run(lambda: Feed(directory), scenario)


def test_envoy_gets_the_models_that_a_server_lists(tmp_path: Path) -> None:
    async def scenario(feed: Feed) -> None:
        feed.find(replace(A, models=None))
        await feed.feed.is_known.wait()
        assert b"envoy.lb" not in feed.cds_path.read_bytes()
        (member,) = feed.core.registry.members
        feed.core.learn_models(member, frozenset({"whisper"}), {})
        await until(lambda: b"whisper" in feed.cds_path.read_bytes())

    run(lambda: Feed(tmp_path), scenario)
