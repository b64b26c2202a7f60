"""Two sidecars' links on two addresses of this machine."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from support.build import a_core, a_request, core_rules, endpoints
from support.in_loop import in_loop
from support.patience import until
from support.ports import free_ports

from extproc.adapters.replica_link import ReplicaLink
from extproc.config.replicas_stage import ReplicasConfig
from extproc.errors import ExtprocError
from extproc.exchange.messages import Phase
from extproc.exchange.placement import Lease
from extproc.routing.core import Core

HOSTS = ("127.0.0.1", "127.0.0.2")
STRANGER = "127.0.0.3"
LONG = 10_000_000
"""Tokens that take so long that no test sees them computed; shorter than what is not believed."""


class Replica:
    """A core before one backend, and its link."""

    def __init__(self, host: str, port: int, number: int) -> None:
        self.core: Core = a_core(endpoints(1), core_rules(has_replicas=True))
        assert self.core.replicas is not None
        config = ReplicasConfig(hosts=HOSTS, address=f"{host}:{port}")
        self.replicas = self.core.replicas
        self.link = ReplicaLink(config, self.replicas, number)

    @property
    def computed_at_s(self) -> float:
        (backend,) = self.core.registry.members
        return backend.prefilled_at_s

    def send(self, tokens: int) -> Lease:
        placement = self.core.place(a_request(input_tokens=tokens), Phase.REQUEST_BODY, 0.0)
        assert placement.lease is not None
        return placement.lease


@asynccontextmanager
async def two_replicas() -> AsyncIterator[tuple[Replica, Replica, int]]:
    port = free_ports(1)[0]
    first, second = (Replica(host, port, number) for number, host in enumerate(HOSTS))
    tasks = [asyncio.create_task(each.link.follow()) for each in (first, second)]
    try:
        await until(lambda: len(first.replicas) == len(second.replicas) == 1)
        yield first, second, port
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@in_loop
async def test_a_prompt_is_reported_to_the_other_and_so_is_its_end() -> None:
    async with two_replicas() as (first, second, _):
        now_s = time.monotonic()
        lease = first.send(LONG)
        await until(lambda: second.computed_at_s > now_s + 900.0)
        lease.end(now_s)
        await until(lambda: second.computed_at_s < now_s + 100.0)
        assert first.link.refused == second.link.refused == 0


@in_loop
async def test_more_reports_than_a_datagram_takes_arrive() -> None:
    async with two_replicas() as (first, second, _):
        now_s = time.monotonic()
        (backend,) = first.core.registry.members
        for number in range(1000):
            first.replicas.sent(number, backend, LONG / 1000)
        await until(lambda: second.computed_at_s > now_s + 900.0)


@in_loop
async def test_strangers_and_garbage_are_counted_and_change_nothing() -> None:
    async with two_replicas() as (first, second, port):
        report = msgspec.msgpack.encode((7, [(1, "vllm-1", float(LONG))]))
        garbage = (
            *(b"", b"\xff" * 60_000, msgspec.msgpack.encode((7, [(1, "vllm-1", "many")])), report[:-1]),
            b"\x92\x07\x91\x94\x01\xc0\x00" + b"\x91" * 3000 + b"\xc0",  # a field that none knows, and deep
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind((STRANGER, 0))
            stranger.sendto(report, (HOSTS[1], port))
            await until(lambda: second.link.refused == 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((HOSTS[0], 0))
            for datagram in garbage:
                sender.sendto(datagram, (HOSTS[1], port))
        await until(lambda: second.link.refused == 1 + len(garbage))
        assert second.computed_at_s < time.monotonic()
        assert len(first.replicas) == 1
        first.send(LONG)
        await until(lambda: second.computed_at_s > time.monotonic() + 900.0)


@in_loop
async def test_an_address_that_is_taken_is_said() -> None:
    async with two_replicas() as (_, _, port):
        with pytest.raises(ExtprocError, match=rf"replicas.address 127.0.0.1:{port}: Address already in use"):
            await Replica(HOSTS[0], port, 9).link.follow()


@in_loop
async def test_an_unknown_name_is_logged_and_takes_no_replica_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with two_replicas() as (first, _, port):
        lonely = Replica(STRANGER, port, 9)
        config = ReplicasConfig(hosts=("nobody.invalid", HOSTS[0]), address=f"{STRANGER}:{port}")
        link = ReplicaLink(config, lonely.replicas, 9)
        task = asyncio.create_task(link.follow())
        await until(lambda: first.link.refused > 0)
        task.cancel()
    assert "replicas_unknown host=nobody.invalid" in caplog.text
