"""Responses that live in one server's memory: every request about one reaches that server, or is refused."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from support.client_load import Answer
from support.local_application import model_server
from support.process_stack import LocalStack, SharedStack
from support.stack_fixtures import sharing

ROUNDS = 4
"""A request that is placed at random would have to be lucky so often."""


@dataclass
class Server:
    """Keeps its responses, as vLLM does with its store switched on, and knows no others."""

    name: str
    stored: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Serve, on a port that the kernel chooses."""
        routes = (
            web.post("/v1/responses", self._respond),
            web.get("/v1/responses/{id}", self._find),
            web.post("/v1/responses/{id}/cancel", self._find),
        )
        async with model_server("m", routes) as port:
            yield port

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        previous = body.get("previous_response_id")
        if previous is not None and previous not in self.stored:
            return self._not_found(previous)
        self.stored.append(f"resp_{self.name}-{len(self.stored)}")
        made = {"id": self.stored[-1], "object": "response", "instructions": 'a "id": "resp_x" of a client'}
        if not body.get("stream"):
            return web.json_response(made)
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for kind in ("response.created", "response.completed"):
            event = json.dumps({"response": made, "type": kind})
            await response.write(f": keep-alive\n\nevent: {kind}\ndata: {event}\n\n".encode())
        return response

    async def _find(self, request: web.Request) -> web.Response:
        wanted = request.match_info["id"]
        return web.json_response({"id": wanted}) if wanted in self.stored else self._not_found(wanted)

    def _not_found(self, wanted: str) -> web.Response:
        return web.json_response({"error": {"message": f"{self.name} has no {wanted}"}}, status=404)


@pytest.fixture(scope="module")
def three_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedStack]:
    """A running stack of servers of one model; two of them have a response that the router did not see."""
    servers = Server("a", ["resp_before"]), Server("b", ["resp_before"]), Server("c")
    serving = {server.name: server.serving() for server in servers}
    with sharing(tmp_path_factory.mktemp("stored"), lambda _: None, serving) as shared:
        yield shared


async def respond(stack: LocalStack, **fields: Any) -> Answer:
    return await stack.ask({"model": "m", "input": "hello", **fields}, path="/v1/responses")


def id_of(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    found = json.loads(answer.body.split(b"data: ")[-1])
    return str(found.get("response", found)["id"])


async def fetch(stack: LocalStack, path: str) -> tuple[int, str | None, dict[str, Any]]:
    """Return status, reason and body of a request by headers alone."""
    async with stack.session.get(stack.envoy.url + path) as response:
        return response.status, response.headers.get("x-extproc-reason"), await response.json()


def test_all_requests_about_a_stored_response_reach_the_server_that_has_it(
    three_servers: SharedStack,
) -> None:
    stack = three_servers.stack

    async def scenario() -> None:
        for is_stream in (False, True) * ROUNDS:
            known = id_of(await respond(stack, stream=is_stream))
            assert (await fetch(stack, f"/v1/responses/{known}"))[0] == 200
            assert (await stack.ask({}, path=f"/v1/responses/{known}/cancel")).status == 200
            follower = id_of(await respond(stack, previous_response_id=known, stream=is_stream))
            assert (await fetch(stack, f"/v1/responses/{follower}?stream=true"))[0] == 200
        await stack.until_idle()

    three_servers.run(scenario())


def test_what_no_server_is_known_to_have_is_refused_and_not_left_to_chance(
    three_servers: SharedStack,
) -> None:
    stack = three_servers.stack

    async def scenario() -> None:
        status, reason, body = await fetch(stack, "/v1/responses/resp_before")
        assert (status, reason, body["error"]["code"]) == (404, "unknown_response", 404)
        refused = await respond(stack, previous_response_id="resp_before")
        assert refused.status == 404
        assert json.loads(refused.body)["error"]["param"] == "previous_response_id"

    three_servers.run(scenario())
