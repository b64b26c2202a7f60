"""What the sidecar knows of the server that Envoy talks to: the same of either transport."""

from collections.abc import Callable, Iterable
from typing import Protocol

from extproc.adapters.envoy.grpc_server import GrpcServer
from extproc.adapters.envoy.services import Health
from extproc.adapters.envoy.thin_server import ThinServer
from extproc.config.stages import ServerConfig
from extproc.exchange.exchange import Exchange
from extproc.outcomes.outcome import LogEntry


class EnvoyServer(Protocol):
    """Serves ext_proc, the access log and health from `start` to `drain`.

    `protocol_errors` counts what was ended for what had been sent on it; `open_streams` are of ext_proc.
    """

    protocol_errors: int
    open_streams: int
    is_draining: bool
    health: Health

    async def start(self) -> int:
        """Listen, and report SERVING.

        Returns the port, 0 for a unix socket. Raises StackError where it cannot.
        """

    async def drain(self) -> None:
        """Report NOT_SERVING, end the streams cleanly, then stop; takes at most `drain_s`, and a moment."""


def new_server(
    config: ServerConfig,
    new_exchange: Callable[[], Exchange],
    handle_entries: Callable[[Iterable[LogEntry]], None],
) -> EnvoyServer:
    """The server of the configured transport."""
    server = ThinServer if config.transport == "thin" else GrpcServer
    return server(config, new_exchange, handle_entries)
