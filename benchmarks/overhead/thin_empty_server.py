"""The least that the thin transport can do for Envoy: what `empty_server.py` is for `grpc.aio`.

The same answers, made once, to the same messages, on the HTTP/2 and gRPC of `extproc serve`, with no exchange
behind them. What the thin sidecar spends beyond it is the sidecar's own.
"""

import asyncio
import signal
from itertools import cycle

import typer
import uvloop

from benchmarks.overhead.empty_server import MAX_MESSAGE_BYTES, answer_to, route_to
from extproc.adapters.envoy.services import ACCESS_LOG_SERVICE, EXT_PROC_SERVICE
from extproc.h2.grpc_call import Call, Handler, NewHandler, UnfinishedMessages
from extproc.h2.grpc_connection import GrpcService
from extproc.h2.protocol import GrpcProtocol


class _EmptyCall(Handler):
    """A call whose messages are answered by `route` or `continue`."""

    __slots__ = ("_answers", "_call")

    def __init__(self, call: Call, answers: "cycle[bytes]") -> None:
        self._call, self._answers = call, answers

    def receive(self, message: bytes) -> None:
        self._call.send(answer_to(message, self._answers))

    def half_close(self) -> None:
        self._call.finish()

    def drain(self) -> None:
        self._call.finish()


class _DroppedCall(_EmptyCall):
    """A call whose messages are read and forgotten."""

    def receive(self, message: bytes) -> None:
        pass


def empty_service(clusters: list[str]) -> GrpcService:
    """Return the service that answers so."""
    answers = cycle([route_to(cluster) for cluster in clusters])
    methods: dict[str, NewHandler] = {
        f"/{EXT_PROC_SERVICE}/Process": lambda call: _EmptyCall(call, answers),
        f"/{ACCESS_LOG_SERVICE}/StreamAccessLogs": lambda call: _DroppedCall(call, answers),
    }
    return GrpcService(methods, MAX_MESSAGE_BYTES, UnfinishedMessages(8 * MAX_MESSAGE_BYTES, print), print)


async def serve(address: str, clusters: list[str]) -> None:
    """Serve `address`, HOST:PORT, until SIGTERM or SIGINT."""
    is_over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, is_over.set)
    service = empty_service(clusters)
    connections: set[GrpcProtocol] = set()
    host, _, port = address.rpartition(":")
    await loop.create_server(lambda: GrpcProtocol(service, connections, asyncio.Event()), host, int(port))
    await is_over.wait()


def main(address: str, clusters: list[str]) -> None:
    """Serve ext_proc on ADDRESS (HOST:PORT), and route to CLUSTERS in turn."""
    uvloop.run(serve(address, clusters))


if __name__ == "__main__":
    typer.run(main)
