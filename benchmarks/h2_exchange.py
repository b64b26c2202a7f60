"""`python -m benchmarks.h2_exchange`: CPU time of the HTTP/2 state machine, and its memory per stream.

An exchange is what ext_proc makes of one request: HEADERS and two DATA frames in, the last of them with
END_STREAM; HEADERS, two DATA frames and trailers out. Its bytes come in two reads and go in three writes.
What the messages mean, and the socket, are not part of it.
"""

import argparse
import time
import tracemalloc
from collections.abc import Callable

import hpack
from rich.console import Console
from rich.table import Table

from benchmarks.timing import cpu_us
from extproc.h2 import frames
from extproc.h2.connection import ServerConnection
from extproc.h2.events import ErrorCode
from extproc.h2.frames import PREFACE

EXCHANGES = 1000
OPEN_STREAMS = 10_000
BUDGET_BYTES = 8192
REQUEST = (
    (":method", "POST"),
    (":path", "/envoy.service.ext_proc.v3.ExternalProcessor/Process"),
    (":authority", "extproc"),
    (":scheme", "http"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("x-envoy-internal", "true"),
    ("x-forwarded-for", "10.1.2.3"),
    ("x-envoy-expected-rq-timeout-ms", "10000"),
)
MESSAGE = bytes(200)


def stateless(fields: tuple[tuple[str, str], ...]) -> bytes:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode([hpack.NeverIndexedHeaderTuple(*field) for field in fields])


ANSWER = stateless(((":status", "200"), ("content-type", "application/grpc")))
TRAILERS = stateless((("grpc-status", "0"),))


def greeted() -> ServerConnection:
    """A connection whose client has acknowledged our SETTINGS."""
    connection = ServerConnection()
    settings = frames.frame(frames.SETTINGS, 0, 0) + frames.frame(frames.SETTINGS, frames.ACK, 0)
    connection.receive(PREFACE + settings + frames.window_update(0, 2**30), 0.0)
    connection.data_to_send()
    return connection


def opening(stream_id: int, block: bytes) -> bytes:
    request = frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, block)
    return request + frames.frame(frames.DATA, 0, stream_id, MESSAGE)


def exchanges(block_of: Callable[[int], bytes]) -> Callable[[], None]:
    """Many exchanges on one new connection, one after the other."""
    first, second = [], []
    for stream_id in range(1, 2 * EXCHANGES, 2):
        first.append(opening(stream_id, block_of(stream_id)))
        second.append(frames.frame(frames.DATA, frames.END_STREAM, stream_id, MESSAGE))

    def run() -> None:
        connection = greeted()
        for number in range(EXCHANGES):
            stream_id = 2 * number + 1
            connection.receive(first[number], 0.0)
            connection.send_headers(stream_id, ANSWER)
            connection.send_data(stream_id, MESSAGE)
            connection.data_to_send()
            connection.receive(second[number], 0.0)
            connection.send_data(stream_id, MESSAGE)
            connection.data_to_send()
            connection.send_headers(stream_id, TRAILERS, end_stream=True)
            connection.data_to_send()
        assert connection.open_streams == 0

    return run


def body(size_bytes: int) -> Callable[[], None]:
    """One request of that size in DATA frames of 16 KiB, read 64 KiB at a time."""
    last = frames.frame(frames.DATA, frames.END_STREAM, 1)
    data = opening(1, stateless(REQUEST))
    data += frames.frame(frames.DATA, 0, 1, bytes(16_384)) * (size_bytes // 16_384) + last
    reads = [data[start : start + 65_536] for start in range(0, len(data), 65_536)]

    def run() -> None:
        connection = greeted()
        for read in reads:
            connection.receive(read, 0.0)

    return run


def bytes_per_open_stream() -> float:
    """Of streams that have one message each way, as those of requests in flight do."""
    block = stateless(REQUEST)
    connection = greeted()
    tracemalloc.start()
    before_bytes = tracemalloc.get_traced_memory()[0]
    for stream_id in range(1, 2 * OPEN_STREAMS, 2):
        connection.receive(opening(stream_id, block), 0.0)
        connection.send_headers(stream_id, ANSWER)
        connection.send_data(stream_id, MESSAGE)
        connection.data_to_send()
    used_bytes = tracemalloc.get_traced_memory()[0] - before_bytes
    tracemalloc.stop()
    assert connection.open_streams == OPEN_STREAMS
    return used_bytes / OPEN_STREAMS


def bytes_left_by(streams: int) -> tuple[int, float]:
    """Memory held after this many exchanges, beyond that after the first thousand; and how long they took."""
    block = stateless(REQUEST)
    connection = greeted()
    tracemalloc.start()
    begin_bytes, started_s = 0, time.perf_counter()
    for number in range(streams):
        if number == EXCHANGES:
            begin_bytes = tracemalloc.get_traced_memory()[0]
        stream_id = 2 * number + 1
        connection.receive(opening(stream_id, block), number * 1e-3)
        connection.send_headers(stream_id, ANSWER)
        if number % 2:
            connection.send_headers(stream_id, TRAILERS, end_stream=True)
            connection.receive(frames.frame(frames.DATA, frames.END_STREAM, stream_id), number * 1e-3)
        else:
            connection.receive(frames.rst_stream(stream_id, ErrorCode.CANCEL), number * 1e-3)
        connection.data_to_send()
    left_bytes = tracemalloc.get_traced_memory()[0] - begin_bytes
    tracemalloc.stop()
    assert connection.open_streams == 0
    return left_bytes, time.perf_counter() - started_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=0, help="open and close this many, and look for leaks")
    streams: int = parser.parse_args().streams
    block = stateless(REQUEST)
    table = Table("what", "us", title="CPU time, best of many batches")
    same = cpu_us(exchanges(lambda _: block)) / EXCHANGES
    table.add_row("exchange, the same header block", f"{same:.1f}")
    other = cpu_us(exchanges(lambda number: stateless((*REQUEST, ("x-request-id", f"{number:032x}")))))
    table.add_row("exchange, a block of its own", f"{other / EXCHANGES:.1f}")
    table.add_row("request body of 32 MiB", f"{cpu_us(body(32 * 2**20)):,.0f}")
    console = Console()
    console.print(table)
    per_stream = bytes_per_open_stream()
    verdict = "ok" if per_stream <= BUDGET_BYTES else "OVER"
    console.print(
        f"{OPEN_STREAMS:,} open streams: {per_stream:,.0f} bytes each, of {BUDGET_BYTES:,}: {verdict}"
    )
    if streams > EXCHANGES:
        left_bytes, took_s = bytes_left_by(streams)
        console.print(
            f"{streams:,} streams, opened and closed: {left_bytes:+,} bytes ({took_s:.0f} s, traced)"
        )


if __name__ == "__main__":
    main()
