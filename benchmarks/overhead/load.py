"""An HTTP/1.1 load generator: keep-alive connections in a closed loop, as cheap as Python allows.

It stands in the client's place. Each connection sends the same request bytes, waits for the end of the
response and sends again, so the number of connections is the number of requests in flight. Of a response it
reads the status, the content length or the end of the chunks, and how many SSE events came: enough to tell
a right answer from a wrong one, and nothing more. The load's own CPU time is part of the result: where it
is not small against the rest, the machine measured its client.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import typer
import uvloop

MODEL = "bench"
_CHUNKED_END = b"\r\n0\r\n\r\n"
_EVENT_BYTE = b"["  # exactly once in each event of `backend.py`, and never in a header or a chunk's size
_PROMPT = "The quick brown fox jumps over the lazy dog, and then it does so again. " * 11


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one run measured; latencies are sorted, from the last request byte to the last response byte."""

    latencies_s: list[float]
    errors: int
    duration_s: float
    client_cpu_s: float

    @property
    def requests(self) -> int:
        """The number of right answers."""
        return len(self.latencies_s)

    @property
    def requests_per_s(self) -> float:
        """Right answers a second."""
        return self.requests / self.duration_s

    def latency_s(self, fraction: float) -> float:
        """A percentile of the latency; NaN where nothing was answered."""
        if not self.latencies_s:
            return float("nan")
        return self.latencies_s[min(int(self.requests * fraction), self.requests - 1)]


@dataclass(slots=True)
class _Tally:
    """What the connections of a run share: when to stop, and what they saw."""

    deadline_s: float
    latencies_s: list[float] = field(default_factory=list)
    errors: int = 0


def chat_request(chunks: int = 0, pause_ms: int = 0) -> bytes:
    """A chat completion of about 1 KB, answered by a stream if it has `chunks`, `pause_ms` apart."""
    document = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": _PROMPT},
        ],
        "max_tokens": chunks or 16,
        "temperature": 0.7,
        "stream": chunks > 0,
    }
    body = json.dumps(document).encode()
    headers = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        "host: bench.local\r\n"
        "user-agent: bench/1\r\n"
        "accept: */*\r\n"
        "authorization: Bearer sk-0123456789abcdef0123456789abcdef\r\n"
        "content-type: application/json\r\n"
        f"x-pause-ms: {pause_ms}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return headers.encode() + body


class _Connection(asyncio.Protocol):
    """One keep-alive connection: sends, reads one response to its end, and sends again until the deadline."""

    def __init__(self, request: bytes, events: int, tally: _Tally, ended: asyncio.Future[None]) -> None:
        self._request, self._events, self._tally, self._ended = request, events, tally, ended
        self._transport: asyncio.Transport | None = None
        self._sent_s = 0.0
        self._start_response()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        self._transport.write(self._request)
        self._sent_s = time.perf_counter()

    def _start_response(self) -> None:
        self._head: bytes | None = b""  # the response's bytes up to its body; None once that has begun
        self._is_right = self._is_chunked = False
        self._missing_bytes = 0
        self._seen_events = 0
        self._tail = b"\r\n"  # that of the head: a body without chunks ends here

    def data_received(self, data: bytes) -> None:
        body = data
        if self._head is not None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            body = self._head[end + 4 :]
            self._read_head(self._head[:end])
            self._head = None
        if self._is_chunked:
            self._seen_events += body.count(_EVENT_BYTE)
            self._tail = (self._tail + body)[-len(_CHUNKED_END) :]
            if self._tail == _CHUNKED_END:
                self._response_ended(self._is_right and self._seen_events == self._events)
            return
        self._missing_bytes -= len(body)
        if self._missing_bytes <= 0:
            self._response_ended(self._is_right and self._missing_bytes == 0)

    def _read_head(self, head: bytes) -> None:
        self._is_right = head.startswith(b"HTTP/1.1 200")
        at = head.find(b"\r\ncontent-length: ")
        self._is_chunked = at < 0
        if not self._is_chunked:
            self._missing_bytes = int(head[at + 18 :].split(b"\r\n", 1)[0])
            self._is_right = self._is_right and not self._events  # a stream that became a plain answer

    def _response_ended(self, is_right: bool) -> None:
        now_s = time.perf_counter()
        if is_right:
            self._tally.latencies_s.append(now_s - self._sent_s)
        else:
            self._tally.errors += 1
        self._start_response()
        if now_s < self._tally.deadline_s:
            self._send()
        else:
            assert self._transport is not None
            self._ended.set_result(None)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():  # in the middle of a response; the closed loop goes on without it
            self._tally.errors += 1
            self._ended.set_result(None)


async def run_load(
    port: int, connections: int, duration_s: float, chunks: int = 0, pause_ms: int = 0
) -> LoadResult:
    """Load 127.0.0.1:`port`; each connection sends at least one request, and finishes its last.

    A request counts if its answer is a complete 200, with `chunks` events and `[DONE]` where it is a stream.
    Raises OSError where a connection cannot be made.
    """
    loop = asyncio.get_running_loop()
    request, events = chat_request(chunks, pause_ms), chunks + 1 if chunks else 0
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    tally = _Tally(begun_s + duration_s)
    ended = [loop.create_future() for _ in range(connections)]
    for future in ended:
        make = partial(_Connection, request, events, tally, future)
        await loop.create_connection(make, "127.0.0.1", port)
    await asyncio.gather(*ended)
    return LoadResult(
        latencies_s=sorted(tally.latencies_s),
        errors=tally.errors,
        duration_s=time.perf_counter() - begun_s,
        client_cpu_s=time.process_time() - cpu_s,
    )


def main(
    port: int, connections: int = 32, duration_s: float = 3.0, chunks: int = 0, pause_ms: int = 0
) -> None:
    """Load 127.0.0.1:PORT and say what came of it, and what the client itself cost."""
    result = uvloop.run(run_load(port, connections, duration_s, chunks, pause_ms))
    print(
        f"{result.requests} requests, {result.errors} errors, {result.requests_per_s:,.0f} requests/s, "
        f"latency p50 {result.latency_s(0.5) * 1e3:.3f} ms, p99 {result.latency_s(0.99) * 1e3:.3f} ms, "
        f"client {result.client_cpu_s / max(result.requests, 1) * 1e6:.1f} µs/request"
    )


if __name__ == "__main__":
    typer.run(main)
