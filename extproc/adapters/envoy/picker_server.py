"""The gRPC server that gateways talk to: the Endpoint Picker Protocol, and health on a port of its own.

A gateway of another make than Envoy does not go on without its picker, and no gateway does once it has sent a
body. So a picker that is to stop goes on serving while it says that it does not: until the gateways have
turned to others, and then until the requests in flight have ended.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

from extproc.adapters.envoy.gateway_calls import PickCall
from extproc.adapters.envoy.large_messages import LargeMessages
from extproc.adapters.envoy.own_turns import OwnTurns
from extproc.adapters.envoy.services import EXT_PROC_SERVICE, SERVICES
from extproc.adapters.envoy.thin_listener import ThinListener
from extproc.config.gateway_stage import GatewayConfig
from extproc.config.stages import ServerConfig
from extproc.errors import StackError
from extproc.exchange.gateway_exchange import GatewayExchange
from extproc.fleet.endpoint import host_and_port
from extproc.h2.grpc_call import NewHandler, UnfinishedMessages
from extproc.h2.grpc_connection import GrpcService
from extproc.h2.h2_limits import USUAL_LIMITS, Limits
from extproc.h2.protocol import DEFAULT_TIMES, GrpcProtocol
from extproc.outcomes.outcome import LogEntry

BODIES_AT_ONCE = 8
"""Guessed: of the largest bodies. It bounds the bytes that are collected, or wait to be sent back."""

_FRAME_BYTES = 1 << 10
"""Guessed: more than the frames around a part of a body, which has 62,000 bytes; and of a short body."""
_MAX_QUESTION_BYTES = 1 << 10


class PickerServer(ThinListener):
    """Serves gateways until the end of `drain`, and tells of its health at `health_address`."""

    services = SERVICES | {"liveness", "readiness", "inference-extension"}
    living = frozenset({"liveness"})
    may_assume_h2 = True  # Envoy's health checks negotiate no protocol by default

    def __init__(
        self,
        config: ServerConfig,
        gateway: GatewayConfig,
        health_address: str,
        new_exchange: Callable[[], GatewayExchange],
        handle_entries: Callable[[Iterable[LogEntry]], None],
    ) -> None:
        self.is_ending = False
        self.turns = OwnTurns(self.is_behind)
        self._gateway = gateway
        self._health_address = health_address
        self._new_exchange = new_exchange
        self._health_listener: asyncio.Server | None = None
        body_bytes = gateway.max_body_bytes + gateway.max_body_bytes // _FRAME_BYTES + _FRAME_BYTES
        limits = Limits(
            max_stream_queue_bytes=body_bytes + USUAL_LIMITS.max_stream_queue_bytes,
            max_unsent_bytes=BODIES_AT_ONCE * body_bytes,
        )
        super().__init__(config, handle_entries, DEFAULT_TIMES, limits)
        self._probes: set[GrpcProtocol] = set()
        unfinished = UnfinishedMessages(BODIES_AT_ONCE * _MAX_QUESTION_BYTES, self._refused)
        self._health_service = GrpcService(
            self.health_methods, _MAX_QUESTION_BYTES, unfinished, self._refused
        )

    def methods(self) -> dict[str, NewHandler]:
        """Return the handler of ext_proc."""
        return {f"/{EXT_PROC_SERVICE}/Process": partial(PickCall, self, self._new_exchange, LargeMessages())}

    async def start(self) -> int:
        """Listen on both addresses, and report SERVING. Returns the port of ext_proc; see `ThinListener`."""
        try:
            self._health_listener = await asyncio.get_running_loop().create_server(
                self._new_probe, *host_and_port(self._health_address)
            )
        except OSError as error:
            raise StackError(f"health: cannot listen on {self._health_address}: {error}") from error
        return await super().start()

    async def drain(self) -> None:
        """Report NOT_SERVING, and serve on for `drain_s`; then let the requests in flight end, and stop.

        It ends earlier once no gateway is connected.
        """
        self.is_serving = False
        self.is_draining = True
        await self.until_closed(self._gateway.drain_s)
        self.stop_listening()
        for connection in tuple(self._connections):
            connection.drain()
        await self.until_closed(self._gateway.finish_s)
        self.is_ending = True
        await super().drain()
        self.turns.finish()
        if self._health_listener is not None:
            self._health_listener.close()
        for probe in tuple(self._probes):
            probe.abort()

    def _new_probe(self) -> GrpcProtocol:
        return GrpcProtocol(self._health_service, self._probes, asyncio.Event())
