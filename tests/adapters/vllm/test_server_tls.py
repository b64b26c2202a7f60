import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from support.local_application import application_at

from extproc.adapters.vllm.asked_server import AskedServer, ScrapeResult, ServerAnswer
from extproc.adapters.vllm.kept_connection import KeptConnection
from extproc.adapters.vllm.server_tls import ServerTls
from extproc.fleet.endpoint import TlsRule


async def answer(request: web.Request) -> web.StreamResponse:
    return web.Response(text=request.path)


async def move(request: web.Request) -> web.StreamResponse:
    return web.Response(status=307, headers={"location": f"https://127.0.0.1:{request.url.port}/p/x/"})


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return authority


async def asked(
    authority: trustme.CA, path: Path, server_name: str = "", *names: str, times: int = 1
) -> list[ServerAnswer]:
    """The answers of a server with a certificate for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1",))).configure_cert(context)
    routes = [web.get("/p/metrics", answer), web.get("/p/moved", move), web.get("/p/x/", answer)]
    async with application_at(routes, context) as port:
        tls = ServerTls(TlsRule(server_name, path))
        server = AskedServer(KeptConnection("127.0.0.1", port, 5.0, 1000, tls), "/p")
        try:
            return [await server.ask("/metrics" if number == 0 else "/moved") for number in range(times)]
        finally:
            server.close()


def test_a_server_is_asked_over_tls_below_its_prefix_and_where_it_redirects_to(
    authority: trustme.CA, tmp_path: Path
) -> None:
    answers = asyncio.run(asked(authority, tmp_path / "ca.pem", times=2))
    assert answers == [ServerAnswer(ScrapeResult.OK, b"/p/metrics"), ServerAnswer(ScrapeResult.OK, b"/p/x/")]


def test_the_name_in_the_certificate_may_be_another_than_the_host(
    authority: trustme.CA, tmp_path: Path
) -> None:
    (found,) = asyncio.run(asked(authority, tmp_path / "ca.pem", "vllm.example", "vllm.example"))
    assert found.result is ScrapeResult.OK


@pytest.mark.parametrize("fault", ["another name", "another authority", "no file", "no certificates"])
def test_a_server_that_cannot_be_believed_is_out_of_reach(
    authority: trustme.CA, tmp_path: Path, fault: str
) -> None:
    path = tmp_path / "ca.pem"
    if fault == "no file":
        path.unlink()
    if fault == "no certificates":
        path.write_text("none")
    names = ("another.example",) if fault == "another name" else ()
    shown_by = trustme.CA() if fault == "another authority" else authority
    (found,) = asyncio.run(asked(shown_by, path, "", *names))
    assert found.result is ScrapeResult.UNREACHABLE
    assert found.detail


def test_a_replaced_file_holds_from_the_next_connection_on(authority: trustme.CA, tmp_path: Path) -> None:
    tls = ServerTls(TlsRule("", tmp_path / "ca.pem"))
    first = tls.options("host")["ssl"]
    assert tls.options("host")["ssl"] is first
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "new.pem"))
    (tmp_path / "new.pem").replace(tmp_path / "ca.pem")
    assert tls.options("host")["ssl"] is not first
