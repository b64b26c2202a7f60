"""The gRPC health service (`grpc.health.v1`, https://github.com/grpc/grpc/blob/master/doc/health-checking.md).

One status for the whole process: SERVING from start to drain, for every service that it offers.
"""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from extproc.adapters.protos import health_pb2 as pb

HEALTH_SERVICE = "grpc.health.v1.Health"


class HealthService:
    """`Check` answers at once, `Watch` again at every change."""

    def __init__(self, services: frozenset[str]) -> None:
        self._services = services | {"", HEALTH_SERVICE}
        self._status = pb.HealthCheckResponse.NOT_SERVING
        self._changed = asyncio.Event()

    @property
    def is_serving(self) -> bool:
        """Whether the process takes requests."""
        return self._status == pb.HealthCheckResponse.SERVING

    def serve(self) -> None:
        """Report SERVING."""
        self._set(pb.HealthCheckResponse.SERVING)

    def stop_serving(self) -> None:
        """Report NOT_SERVING, and end all watches."""
        self._set(pb.HealthCheckResponse.NOT_SERVING)

    def handler(self) -> grpc.GenericRpcHandler:
        """What a gRPC server has to serve."""
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        return grpc.method_handlers_generic_handler(HEALTH_SERVICE, methods)

    def _set(self, status: "pb.HealthCheckResponse.ServingStatus") -> None:
        self._status = status
        self._changed.set()
        self._changed = asyncio.Event()

    def _message(self) -> bytes:
        return pb.HealthCheckResponse(status=self._status).SerializeToString()

    async def _check(self, message: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        if _service(message) not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return self._message()

    async def _watch(self, message: bytes, _: object) -> AsyncIterator[bytes]:
        if _service(message) not in self._services:
            yield pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN).SerializeToString()
            return
        yield self._message()
        while self.is_serving:
            await self._changed.wait()
            yield self._message()


def _service(message: bytes) -> str | None:
    try:
        return pb.HealthCheckRequest.FromString(message).service
    except DecodeError:
        return None
