import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest
from support.name_server import HOST, NameServer, name_server
from support.patience import until

from extproc.adapters.discovery.dns import DnsSource
from extproc.config.discovery_stage import DnsDiscovery
from extproc.fleet.endpoint import Endpoint


def source_for(server: NameServer, **fields: Any) -> DnsSource:
    settings = {"kind": "dns", "host": HOST, "port": 8000, "nameservers": [server.address]}
    return DnsSource(DnsDiscovery(**(settings | {"interval_s": 0.01, "timeout_s": 5.0} | fields)))


async def first_set(source: DnsSource) -> Sequence[Endpoint]:
    async with aclosing(source.sets()) as sets, asyncio.timeout(10):
        return await anext(sets)


def found(server: NameServer, **fields: Any) -> list[str]:
    return [backend.address for backend in asyncio.run(first_set(source_for(server, **fields)))]


def test_every_address_is_a_backend_named_after_it() -> None:
    with name_server() as server:
        server.addresses = ["10.0.0.2", "10.0.0.1", "fd00::12"]
        backends = asyncio.run(first_set(source_for(server, models=["m"], max_num_seqs=7)))
    assert backends == [
        Endpoint("vllm-10-0-0-1", "10.0.0.1", 8000, frozenset({"m"}), 7),
        Endpoint("vllm-10-0-0-2", "10.0.0.2", 8000, frozenset({"m"}), 7),
        Endpoint("vllm-fd00-0000-0000-0000-0000-0000-0000-0012", "fd00::12", 8000, frozenset({"m"}), 7),
    ]


@pytest.mark.parametrize(
    ("family", "addresses"),
    [("any", ["10.0.0.1:8000", "[fd00::1]:8000"]), ("ipv4", ["10.0.0.1:8000"]), ("ipv6", ["[fd00::1]:8000"])],
)
def test_only_the_wanted_family_is_asked_for(family: str, addresses: list[str]) -> None:
    with name_server() as server:
        server.addresses = ["10.0.0.1", "fd00::1"]
        assert found(server, family=family) == addresses
        assert len(server.asked) == len(addresses)


ODD = [
    *("0.0.0.0", "169.254.169.254", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *("::", "fe80::1", "ff02::1", "::ffff:a9fe:a9fe"),
]


@pytest.mark.parametrize("odd", ODD)
def test_an_address_that_no_backend_has_is_left_out_and_said(
    odd: str, caplog: pytest.LogCaptureFixture
) -> None:
    with name_server() as server:
        server.addresses = ["10.0.0.1", odd]
        assert found(server) == ["10.0.0.1:8000"]
    assert caplog.text.count("dns_addresses_left_out") == 1


@pytest.mark.parametrize("addresses", [[], None], ids=["no records", "NXDOMAIN"])
def test_no_address_is_an_answer(addresses: list[str] | None) -> None:
    with name_server() as server:
        server.addresses = addresses
        assert found(server) == []


def test_five_hundred_addresses_come_by_tcp() -> None:
    with name_server() as server:
        server.addresses = [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(500)]
        assert len(found(server, family="ipv4")) == 500
        assert server.asked == ["udp A", "tcp A"]


def test_repeated_records_count_once() -> None:
    with name_server() as server:
        server.addresses = ["10.0.0.1", "10.0.0.1"]
        assert found(server) == ["10.0.0.1:8000"]


@pytest.mark.parametrize("record_type", ["A", "AAAA"])
@pytest.mark.parametrize("fault", ["SERVFAIL", "REFUSED", "silence"])
def test_half_an_answer_is_none(record_type: str, fault: str) -> None:
    async def scenario(server: NameServer) -> None:
        source = source_for(server, timeout_s=0.5)
        async with aclosing(source.sets()) as sets, asyncio.timeout(10):
            assert len(await anext(sets)) == 2
            source.counts.failures = 0
            server.failing = {record_type: fault}
            following = asyncio.create_task(anext(sets))
            await until(lambda: source.counts.failures >= 2)
            assert not following.done(), "nothing is said while nothing is known"
            server.failing = {}
            assert len(await following) == 2

    with name_server() as server:
        server.addresses = ["10.0.0.1", "fd00::1"]
        asyncio.run(scenario(server))


def test_a_change_is_found_at_the_next_question() -> None:
    async def scenario(server: NameServer) -> None:
        async with aclosing(source_for(server).sets()) as sets, asyncio.timeout(10):
            assert [backend.host for backend in await anext(sets)] == ["10.0.0.1"]
            server.addresses = ["10.0.0.2", "10.0.0.1"]
            assert [backend.host for backend in await anext(sets)] == ["10.0.0.1", "10.0.0.2"]

    with name_server() as server:
        server.addresses = ["10.0.0.1"]
        asyncio.run(scenario(server))


def test_no_name_server_at_all_is_a_failure_and_no_answer() -> None:
    async def scenario() -> None:
        settings = DnsDiscovery(kind="dns", host=HOST, port=1, nameservers=("127.0.0.1:1",), timeout_s=0.1)
        source = DnsSource(settings)
        async with aclosing(source.sets()) as sets:
            waiting = asyncio.create_task(anext(sets))
            await until(lambda: source.counts.failures)
            assert not waiting.done()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(scenario())
