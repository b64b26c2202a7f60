"""The server that Envoy talks to, on either transport."""

from collections.abc import Callable, Iterable

from extproc.adapters.envoy.grpc_server import GrpcServer
from extproc.adapters.envoy.thin_server import ThinServer
from extproc.config.stages import ServerConfig
from extproc.exchange.exchange import Exchange
from extproc.outcomes.outcome import LogEntry

EnvoyServer = ThinServer | GrpcServer
"""Serves ext_proc, the access log and health from `start` to `drain`; its `open_streams` are of ext_proc."""


def new_server(
    config: ServerConfig,
    new_exchange: Callable[[], Exchange],
    handle_entries: Callable[[Iterable[LogEntry]], None],
) -> EnvoyServer:
    """Return the server of the configured transport."""
    server = ThinServer if config.transport == "thin" else GrpcServer
    return server(config, new_exchange, handle_entries)
