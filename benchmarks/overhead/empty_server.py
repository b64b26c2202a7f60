"""The least that a `grpc.aio` + uvloop server can do for Envoy: the reference of the overhead budget.

It answers the two messages of each HTTP request, headers with "continue" and body with a header mutation that
picks the next cluster of a fixed round, from bytes that were made once. Nothing is parsed or serialised: the
messages are told apart by their first tag byte. It keeps no state, decides nothing and scrapes nothing, so
what a sidecar spends beyond it is the sidecar's own. Access-log messages, a few dozen a second, are read
and dropped: refusing them would make Envoy open that stream again and again.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from itertools import cycle

import grpc
import typer
import uvloop

CLUSTER_HEADER = b"x-extproc-cluster"
MAX_MESSAGE_BYTES = 33 << 20
_REQUEST_HEADERS_TAG, _REQUEST_BODY_TAG = 0x12, 0x22  # fields 2 and 4 of ProcessingRequest
_TRAILERS_TAGS = {0x32: b"\x2a\x00", 0x3A: b"\x32\x00"}  # of the request and of the response: continue
_CONTINUE_HEADERS = b"\x0a\x00"


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field, of fewer than 128 bytes."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def route_to(cluster: str) -> bytes:
    """The serialised ProcessingResponse to a body that sets the cluster header and clears the route cache."""
    header = _field(1, CLUSTER_HEADER) + _field(3, cluster.encode())  # key, raw_value
    overwrite = b"\x18\x02"  # append_action: OVERWRITE_IF_EXISTS_OR_ADD
    mutation = _field(1, _field(1, header) + overwrite)  # HeaderMutation.set_headers
    common = _field(2, mutation) + b"\x28\x01"  # CommonResponse: header_mutation, clear_route_cache
    return _field(3, _field(1, common))  # ProcessingResponse.request_body


def answer_to(message: bytes, routes: Iterator[bytes]) -> bytes:
    """The answer to a ProcessingRequest; the next of `routes` to one that brings a body."""
    tag = message[0]
    if tag == _REQUEST_BODY_TAG:
        return next(routes)
    return _CONTINUE_HEADERS if tag == _REQUEST_HEADERS_TAG else _TRAILERS_TAGS[tag]


class EmptyServer:
    """The two services that Envoy calls, on bytes."""

    def __init__(self, clusters: list[str]) -> None:
        self._answers = cycle([route_to(cluster) for cluster in clusters])

    async def process(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        """One HTTP request: the stream ends when its response has ended."""
        while (message := await context.read()) is not grpc.aio.EOF:
            await context.write(answer_to(message, self._answers))

    async def stream_access_logs(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
    ) -> bytes:
        """Read access-log messages to the end, and forget them."""
        while await context.read() is not grpc.aio.EOF:
            pass
        return b""


async def serve(address: str, clusters: list[str]) -> None:
    """Serve `address` until SIGTERM or SIGINT."""
    is_over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, is_over.set)
    lengths = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ]
    server = grpc.aio.server(options=lengths)
    empty = EmptyServer(clusters)
    ext_proc = {"Process": grpc.stream_stream_rpc_method_handler(empty.process)}
    access_log = {"StreamAccessLogs": grpc.stream_unary_rpc_method_handler(empty.stream_access_logs)}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("envoy.service.ext_proc.v3.ExternalProcessor", ext_proc),
            grpc.method_handlers_generic_handler("envoy.service.accesslog.v3.AccessLogService", access_log),
        )
    )
    server.add_insecure_port(address)
    await server.start()
    await is_over.wait()
    await server.stop(grace=0)


def main(address: str, clusters: list[str]) -> None:
    """Serve ext_proc on ADDRESS (HOST:PORT or unix:///PATH), and route to CLUSTERS in turn."""
    uvloop.run(serve(address, clusters))


if __name__ == "__main__":
    typer.run(main)
