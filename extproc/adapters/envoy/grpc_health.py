"""The health service's methods on `grpc.aio`."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from extproc.adapters.envoy.health import HEALTH_SERVICE, SERVICE_UNKNOWN, Health


class GrpcHealth:
    """`Check` answers at once, `Watch` again when the server stops serving."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._stopped = asyncio.Event()

    def stop_serving(self) -> None:
        """Report NOT_SERVING, and end all watches."""
        self._health.is_serving = False
        self._stopped.set()

    def handler(self) -> grpc.GenericRpcHandler:
        """What a gRPC server has to serve."""
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        return grpc.method_handlers_generic_handler(HEALTH_SERVICE, methods)

    async def _check(self, message: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        answer = self._health.answer(message)
        if answer is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return answer or b""

    async def _watch(self, message: bytes, _: object) -> AsyncIterator[bytes]:
        answer = self._health.answer(message)
        if answer is None:
            yield SERVICE_UNKNOWN
            return
        was_serving = self._health.is_serving
        yield answer
        if was_serving:
            await self._stopped.wait()
            yield self._health.state()
