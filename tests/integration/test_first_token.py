"""When a stream's first token comes, and how long its headers are waited for, in a real Envoy."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from aiohttp import web
from support.envoy_process import StartEnvoy
from support.scripted_sidecar import Backend, Script, Stack, route_to, running

from extproc.exchange.messages import BodyReceived, Event, Instruction, RouteTo
from extproc.outcomes.server_times import COMMENTS_KEY

GAP_S = 0.1
COMMENT, TOKEN = b": keep-alive\n\n", b'data: {"choices": []}\n\n'


@dataclass
class Piecewise(Backend):
    """Sends headers, and pieces with a pause after each; the headers wait for `headers_s`."""

    pieces: Sequence[bytes] = (TOKEN,)
    content_type: str = "text/event-stream"
    headers_s: float = 0.0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.received.append((dict(request.headers), len(await request.read())))
        await asyncio.sleep(self.headers_s)
        response = web.StreamResponse(headers={"content-type": self.content_type, "x-answered-by": self.name})
        await response.prepare(request)
        for piece in self.pieces:
            await response.write(piece)
            await asyncio.sleep(GAP_S)
        return response


async def comments_ms(stack: Stack, backend: Piecewise, *pieces: bytes) -> str | None:
    """Return what extproc is told of the comments of a stream, which the client gets as it was sent."""
    backend.pieces = pieces
    assert (await stack.post()).body == b"".join(pieces)
    return (await stack.sidecar.next_entry()).metadata.get(COMMENTS_KEY)


def test_comments_before_the_first_token_are_timed_apart(start_envoy: StartEnvoy) -> None:
    backend = Piecewise("a")

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            stack.sidecar.script = route_to("a")
            for pieces in ((COMMENT, COMMENT, TOKEN, TOKEN), (b":", b" ", b"x\r\n", b"event: e\r\n")):
                told = await comments_ms(stack, backend, *pieces)
                assert told is not None
                assert 2 * GAP_S <= int(told) / 1e3 < 30
            for pieces in ((TOKEN, COMMENT, TOKEN), (COMMENT + TOKEN, TOKEN), (b"d", b"ata: x\n\n")):
                assert await comments_ms(stack, backend, *pieces) is None
            assert await comments_ms(stack, backend, COMMENT, b"\n", COMMENT) == "endless"
            assert await comments_ms(stack, backend, COMMENT, b":" + b"x" * 100_000 + b"\n") is not None
            backend.content_type = "application/json"
            assert await comments_ms(stack, backend, COMMENT, TOKEN) is None

    asyncio.run(scenario())


def stream_to(backend: str, *, expects_headers: bool) -> Script:
    placed = route_to(backend)

    def place(event: Event) -> Instruction:
        if not isinstance(event, BodyReceived):
            return placed(event)
        facts = {"is_stream": True, **({"expects_headers": True} if expects_headers else {})}
        metadata = {"backend": backend, "facts": json.dumps(facts, separators=(",", ":"))}
        return RouteTo(placed(event).phase, backend, metadata)  # type: ignore[union-attr]

    return place


def impatient(bootstrap: str) -> str:
    """Wait for the headers for a fifth of a second, where they are waited for a minute only."""
    assert bootstrap.count("per_try_timeout: 60s") == 1
    return bootstrap.replace("per_try_timeout: 60s", "per_try_timeout: 0.2s")


@pytest.mark.parametrize("expects_headers", [True, False])
def test_only_a_server_that_sends_headers_early_has_a_minute_for_them(
    start_envoy: StartEnvoy, expects_headers: bool
) -> None:
    late, other = Piecewise("late", headers_s=1.0), Piecewise("other")

    async def scenario() -> None:
        async with running(start_envoy, late, other, edit=impatient) as stack:
            stack.sidecar.script = stream_to("late", expects_headers=expects_headers)
            answer = await stack.post()
            answered_by = "other" if expects_headers else "late"
            assert (answer.status, answer.headers["x-answered-by"]) == (200, answered_by)

    asyncio.run(scenario())
    assert (len(late.received), len(other.received)) == (1, int(expects_headers))
