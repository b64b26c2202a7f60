import asyncio

import aiohttp
import pytest
from support.running_parts import Parts

from extproc.adapters.http.host_check import is_host_accepted
from extproc.adapters.http.http_server import HttpServer

OWN = "router.example.com"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "127.0.0.1:9003",
        "10.2.3.4:9003",
        "[::1]:9003",
        "localhost:9003",
        "LocalHost",
        "extproc-5c9d-x2x:9003",
        "vllm-router.default.svc.cluster.local:9003",
        "vllm-router.default.svc",
        "ip-10-0-0-7.ec2.internal",
        "mine.localhost.",
        "router.example.com:9003",
        "Router.Example.com.",
    ],
)
def test_over_loopback_it_is_asked_by_addresses_and_names_that_no_stranger_can_have(host: str) -> None:
    assert is_host_accepted(host, "127.0.0.1", OWN)
    assert is_host_accepted(host, "::ffff:127.0.0.1", OWN)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9003",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "[::1",
        "a.b:x",
    ],
)
def test_over_loopback_a_name_of_the_public_dns_is_refused_and_elsewhere_it_is_not(host: str) -> None:
    assert not is_host_accepted(host, "127.0.0.1", OWN)
    assert not is_host_accepted(host, "::1", OWN)
    assert is_host_accepted(host, "10.2.3.4", OWN)


def test_a_page_that_has_rebound_its_name_reads_nothing(parts: Parts, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        server = HttpServer("127.0.0.1:0", parts.runtime)
        port = await server.start()
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                for path in ("/", "/v1/state", "/metrics", "/healthz"):
                    async with session.get(path, headers={"host": f"evil.example:{port}"}) as response:
                        assert response.status == 421
                        assert "vllm-1" not in await response.text()
                    async with session.get(path, headers={"host": f"localhost:{port}"}) as response:
                        assert response.status == 200
        finally:
            await server.stop()

    runner.run(scenario())
