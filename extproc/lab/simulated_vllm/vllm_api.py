"""The HTTP API of the simulated vLLM: its endpoints, and the way of one request through them.

One of them vLLM does not have: `POST /sim/speed` with `{"speed": 0.5}` makes this a machine of another speed
(the option `--speed`) from now on, so that it can be seen how a router takes it.
"""

import asyncio
import random
import time
from contextlib import suppress
from functools import partial
from typing import Annotated
from uuid import uuid4

import msgspec
from aiohttp import HttpVersion11, web
from prometheus_client import CONTENT_TYPE_LATEST

from extproc.lab.simulated_vllm.answers import VllmAnswer, answer_to
from extproc.lab.simulated_vllm.engine_loop import EngineLoop
from extproc.lab.simulated_vllm.openai import Refusal, read_work
from extproc.lab.simulated_vllm.vllm_metrics import EngineMetrics
from extproc.lab.simulated_vllm.vllm_options import SimOptions
from extproc.request.api import APIS, Api

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Guessed: above the largest body that Envoy passes on."""

MAX_UNREAD_BYTES = 32 * 1024
"""Guessed, and below the 64 KiB at which a transport pauses its protocol: beyond this a client reads too
slowly, and its tokens are held back as a mere count."""


class SseStream:
    """Writes the tokens of one streamed request straight to its connection, as SSE events.

    The HTTP server library parses the request and sends the headers; after that each token is one prepared
    chunk and one write, without waking a coroutine per stream. This is what lets one core stream tens of
    thousands of tokens a second.

    Tokens that a slow client leaves no room for are merged into one later event, as vLLM does: whatever the
    client does, no more than `MAX_UNREAD_BYTES` and one such event are held for it.
    """

    def __init__(self, transport: asyncio.WriteTransport, answer: VllmAnswer, is_chunked: bool) -> None:
        self._transport = transport
        self._answer = answer
        self._is_chunked = is_chunked
        self._token_frame = self._frame(answer.tokens(1))
        self._has_begun = False
        self._unsent_tokens = 0

    def add_token(self, is_last: bool) -> None:
        """Send the next token, or count it if the client is behind; the last one is always sent."""
        self._unsent_tokens += 1
        if self._transport.is_closing():
            return
        if is_last or self._transport.get_write_buffer_size() <= MAX_UNREAD_BYTES:
            self._transport.write(self._next_frames(is_last))
            self._has_begun = True
            self._unsent_tokens = 0

    def _next_frames(self, is_last: bool) -> bytes:
        if self._has_begun and self._unsent_tokens == 1 and not is_last:
            return self._token_frame
        first = b"" if self._has_begun else self._frame(self._answer.first())
        tokens = self._frame(self._answer.tokens(self._unsent_tokens, is_last))
        return first + tokens + (self._frame(self._answer.closing()) if is_last else b"")

    def _frame(self, events: bytes) -> bytes:
        """Return the events as one chunk of HTTP/1.1's chunked coding (RFC 9112, section 7.1)."""
        if not self._is_chunked or not events:
            return events
        return b"%x\r\n%b\r\n" % (len(events), events)


class _SpeedBody(msgspec.Struct):
    speed: Annotated[float, msgspec.Meta(ge=1e-6, le=1e6)]


class SimApi:
    """vLLM's endpoints on top of a simulated engine."""

    def __init__(self, engine_loop: EngineLoop, metrics: EngineMetrics, options: SimOptions) -> None:
        self._engine_loop = engine_loop
        self._metrics = metrics
        self._options = options
        self._rng = random.Random(options.seed)
        self._started_s = int(time.time())

    def application(self) -> web.Application:
        """Return the endpoints, ready to be served."""
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        for api in APIS:
            if api.answer_shape:
                application.router.add_post(api.path, partial(self._answer, api))
        application.router.add_get("/v1/models", self._list_models)
        application.router.add_get("/health", self._show_health)
        application.router.add_get("/metrics", self._show_metrics)
        application.router.add_post("/sim/speed", self._change_speed)
        return application

    async def _answer(self, api: Api, request: web.Request) -> web.StreamResponse:
        """Answer a request for work; a client that leaves cancels this, and so aborts it in the engine."""
        work = read_work(api, await request.read(), self._options.models, self._options.max_model_len)
        if self._rng.random() < self._options.fail_fraction:
            work = Refusal(500, "InternalServerError", "The simulated engine failed, as it was asked to.")
        if isinstance(work, Refusal):
            return _json(work.body(), work.status)
        if self._is_queue_full():
            return await self._refuse(request, work.is_stream)
        answer = answer_to(work, uuid4().hex, int(time.time()))
        return await (self._stream(request, answer) if work.is_stream else self._whole(answer))

    def _is_queue_full(self) -> bool:
        limit = self._options.max_num_queued_reqs
        return limit is not None and self._engine_loop.waiting >= limit

    async def _refuse(self, request: web.Request, is_stream: bool) -> web.StreamResponse:
        """Refuse as vLLM does: a stream has begun by then, so its error is an event."""
        refusal = Refusal(503, "ServiceUnavailableError", "The server has too many requests in its queue.")
        if not is_stream:
            return _json(refusal.body(), refusal.status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        with suppress(ConnectionResetError):
            await response.prepare(request)
            await response.write(b"data: %b\n\ndata: [DONE]\n\n" % refusal.body())
        return response

    async def _whole(self, answer: VllmAnswer) -> web.Response:
        await self._engine_loop.process(answer.key, answer.work, on_token=lambda _is_last: None)
        return _json(answer.body())

    async def _stream(self, request: web.Request, answer: VllmAnswer) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        with suppress(ConnectionResetError):  # The client has left: there is no one to answer.
            await self._send(request, response, answer)
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, answer: VllmAnswer) -> None:
        if request.version >= HttpVersion11:
            response.enable_chunked_encoding()
        await response.prepare(request)
        if opening := answer.opening():
            await response.write(opening)
        if request.transport is None:
            raise ConnectionResetError("the client left before its request was scheduled")
        stream = SseStream(request.transport, answer, response.chunked)
        await self._engine_loop.process(answer.key, answer.work, stream.add_token)
        await response.write_eof()

    async def _list_models(self, _: web.Request) -> web.Response:
        shared = {"object": "model", "created": self._started_s, "owned_by": "vllm", "parent": None}
        shared["max_model_len"] = self._options.max_model_len
        models = [{"id": name, "root": name, **shared} for name in self._options.models]
        return _json(msgspec.json.encode({"object": "list", "data": models}))

    async def _show_health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _change_speed(self, request: web.Request) -> web.Response:
        try:
            body = msgspec.json.decode(await request.read(), type=_SpeedBody)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            refusal = Refusal(400, "Bad Request", str(error), "speed")
            return _json(refusal.body(), refusal.status)
        self._engine_loop.speed = body.speed
        return _json(msgspec.json.encode(body))


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")
