"""The upstream of the benchmark: many vLLM-like HTTP/1.1 servers in one process, which answer at once.

Raw asyncio Protocols under uvloop, one port per backend, so that Envoy and the sidecar are measured and not a
web framework. A chat completion is answered by a small JSON document or, where it asks to be streamed, by
`max_tokens` SSE chunks, each `x-pause-ms` after the one before. `/metrics`, `/v1/models` and `/health` are
there for the scraper; `/scrapes` tells how often `/metrics` was read, so that the harness can tell scraping's
cost from that of a request.
"""

import asyncio
import json
import re
import signal
from typing import cast

import typer
import uvloop

from benchmarks.exposition import short_exposition, vllm_exposition
from benchmarks.overhead.load import MODEL

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_PAUSE_MS = re.compile(rb"\r\nx-pause-ms: (\d+)", re.IGNORECASE)
_MAX_TOKENS = re.compile(rb'"max_tokens": ?(\d+)')
_IS_STREAM = re.compile(rb'"stream": ?true')
_PAGES = 61
"""The pages of a busy server: a prime number, so that each backend shows all of them."""
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
_STREAM_END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
_IDENTITY = {"id": "chatcmpl-92b9d3937f89e633", "created": 1795370171, "model": MODEL}


def _plain(body: bytes, content_type: str = "application/json", status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _completion() -> bytes:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "All is well."},
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": 180, "completion_tokens": 4, "total_tokens": 184}
    document = {**_IDENTITY, "object": "chat.completion", "choices": [choice], "usage": usage}
    return _plain(json.dumps(document).encode())


def _chunk() -> bytes:
    """One SSE event in one HTTP chunk, of the size that vLLM sends."""
    choice = {"index": 0, "delta": {"content": " word"}, "logprobs": None, "finish_reason": None}
    document = {**_IDENTITY, "object": "chat.completion.chunk", "choices": [choice]}
    event = b"data: " + json.dumps(document).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


class Answers:
    """The bytes that every port answers with, made once, and the count of scrapes.

    Where the servers `are_busy`, the numbers of a page are others than those of the page before.
    """

    def __init__(self, is_metrics_whole: bool, are_busy: bool = False) -> None:
        models = {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "bench"}]}
        expositions = [vllm_exposition(MODEL) if is_metrics_whole else short_exposition(MODEL)]
        if are_busy:
            expositions = [vllm_exposition(MODEL, 1 + n % 8, n % 3, 0.1, 1000 + n * 7) for n in range(_PAGES)]
        self._pages = [_plain(text, "text/plain; version=0.0.4; charset=utf-8") for text in expositions]
        self.completion = _completion()
        self.chunk = _chunk()
        self._by_path = {
            b"/v1/models": _plain(json.dumps(models).encode()),
            b"/health": _plain(b""),
        }
        self._not_found = _plain(b'{"detail":"Not Found"}', status="404 Not Found")
        self._scrapes = 0

    def to_get(self, target: bytes) -> bytes:
        """The answer to a GET."""
        path = target.partition(b"?")[0]
        if path == b"/scrapes":
            return _plain(b"%d" % self._scrapes)
        if path == b"/metrics":
            self._scrapes += 1
            return self._pages[self._scrapes % len(self._pages)]
        return self._by_path.get(path, self._not_found)


class _Connection(asyncio.Protocol):
    """One connection, requests one after the other (Envoy and scrapers do not pipeline)."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _CONTENT_LENGTH.search(self._received, 0, end)
        if len(self._received) - end - 4 < (int(length[1]) if length else 0):
            return
        request, self._received = self._received, b""
        self._answer(request, end)

    def _answer(self, request: bytes, end_of_head: int) -> None:
        assert self._transport is not None
        if request.startswith(b"GET "):
            self._transport.write(self._answers.to_get(request[4 : request.index(b" ", 4)]))
        elif _IS_STREAM.search(request, end_of_head):
            chunks, pause_ms = (
                _MAX_TOKENS.search(request, end_of_head),
                _PAUSE_MS.search(request, 0, end_of_head),
            )
            self._stream(int(chunks[1]) if chunks else 1, int(pause_ms[1]) / 1e3 if pause_ms else 0.0)
        else:
            self._transport.write(self._answers.completion)

    def _stream(self, chunks: int, pause_s: float) -> None:
        assert self._transport is not None
        if not pause_s:
            self._transport.write(_STREAM_HEAD + self._answers.chunk * chunks + _STREAM_END)
            return
        self._transport.write(_STREAM_HEAD)  # at once, before anything is scheduled, as vLLM does
        self._write_later(chunks, pause_s, asyncio.get_running_loop().time() + pause_s)

    def _write_later(self, chunks: int, pause_s: float, at_s: float) -> None:
        def write() -> None:
            if self._transport is None:
                return
            if chunks == 1:
                self._transport.write(self._answers.chunk + _STREAM_END)
                return
            self._transport.write(self._answers.chunk)
            self._write_later(chunks - 1, pause_s, at_s + pause_s)  # by the plan: no drift under load

        self._timer = asyncio.get_running_loop().call_at(at_s, write)


async def serve(ports: list[int], is_metrics_whole: bool, are_busy: bool) -> None:
    """Serve 127.0.0.1 on every port until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    is_over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, is_over.set)
    answers = Answers(is_metrics_whole, are_busy)
    for port in ports:
        await loop.create_server(lambda: _Connection(answers), "127.0.0.1", port)
    await is_over.wait()


def main(ports: list[int], full_metrics: bool = False, busy: bool = False) -> None:
    """Serve 127.0.0.1 on PORTS; --full-metrics prints the 48 KB of a real vLLM at /metrics.

    With --busy, these are of one that works: the numbers change.
    """
    uvloop.run(serve(ports, full_metrics, busy))


if __name__ == "__main__":
    typer.run(main)
