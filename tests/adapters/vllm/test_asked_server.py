import asyncio
from collections.abc import Callable

import pytest
from aiohttp import web
from support.local_application import application_at

from extproc.adapters.vllm.asked_server import MAX_REDIRECTIONS, AskedServer, ScrapeResult, ServerAnswer
from extproc.adapters.vllm.kept_connection import KeptConnection

Location = Callable[[int], str]


def asked(
    location: Location, *, status: int = 307, key_header: bytes = b"", times: int = 1
) -> tuple[ServerAnswer, list[str]]:
    """The answer of a server that sends `/metrics` elsewhere, and the paths that it was asked, with keys."""
    seen: list[str] = []

    async def move(request: web.Request) -> web.StreamResponse:
        seen.append(request.path_qs + request.headers.get("authorization", ""))
        return web.Response(status=status, headers={"location": location(request.url.port or 0)})

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.path_qs + request.headers.get("authorization", ""))
        return web.Response(text="here")

    async def scenario() -> ServerAnswer:
        routes = [web.get("/metrics", move), web.get("/metrics/", answer), web.get("/x", answer)]
        async with application_at(routes) as port:
            server = AskedServer(KeptConnection("127.0.0.1", port, 5.0, 1000))
            found = [await server.ask("/metrics", key_header) for _ in range(times)]
            server.close()
            return found[-1]

    return asyncio.run(scenario()), seen


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [lambda port: f"http://127.0.0.1:{port}/metrics/", lambda _: "/metrics/", lambda _: "metrics/"],
)
def test_a_redirection_on_the_same_server_is_followed(location: Location, status: int) -> None:
    answer, paths = asked(location, status=status)
    assert answer == ServerAnswer(ScrapeResult.OK, b"here")
    assert paths == ["/metrics", "/metrics/"]


def test_where_metrics_have_moved_to_is_asked_from_then_on() -> None:
    _, paths = asked(lambda _: "/metrics/", times=3)
    assert paths == ["/metrics", "/metrics/", "/metrics/", "/metrics/"]


def test_the_key_goes_along() -> None:
    _, paths = asked(lambda _: "/x?a=b", key_header=b"authorization: Bearer k\r\n")
    assert paths == ["/metricsBearer k", "/x?a=bBearer k"]


@pytest.mark.parametrize(
    "location",
    [
        lambda port: f"http://localhost:{port}/metrics/",
        lambda port: f"http://127.0.0.1:{port + 1}/metrics/",
        lambda port: f"https://127.0.0.1:{port}/metrics/",
        lambda port: f"http://user@127.0.0.1:{port}/metrics/",
        lambda _: "//169.254.169.254/metrics/",
        lambda _: "http://[::1/",
        lambda _: "http://127.0.0.1:99999999/",
        lambda _: "ftp:x",
        lambda _: "/" + "x" * 3000,
        lambda _: "/é",
        lambda _: "",
    ],
)
def test_no_redirection_leads_to_another_server(location: Location) -> None:
    answer, paths = asked(location)
    assert answer.result is ScrapeResult.BAD_STATUS
    assert set(paths) == {"/metrics"}


def test_a_server_that_sends_to_itself_is_given_up() -> None:
    answer, paths = asked(lambda _: "/metrics")
    assert answer.result is ScrapeResult.BAD_STATUS
    assert len(paths) == 1 + MAX_REDIRECTIONS


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_a_result_of_its_own(status: int) -> None:
    answer, _ = asked(lambda _: "", status=status)
    assert answer == ServerAnswer(ScrapeResult.UNAUTHORIZED, detail=f"status {status} of /metrics")
