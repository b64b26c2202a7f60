"""The gRPC server that Envoy talks to, on our own HTTP/2: the same services as `grpc_server.py`, for less.

When draining, streams whose request has been placed are ended with OK, and Envoy lets those requests go on
without us.
"""

from collections.abc import Callable, Iterable
from functools import partial

from extproc.adapters.envoy.large_messages import LargeMessages
from extproc.adapters.envoy.services import ACCESS_LOG_SERVICE, EXT_PROC_SERVICE
from extproc.adapters.envoy.thin_calls import AccessLogCall, ProcessCall
from extproc.adapters.envoy.thin_listener import ThinListener
from extproc.config.stages import ServerConfig
from extproc.exchange.exchange import Exchange
from extproc.h2.grpc_call import NewHandler
from extproc.h2.protocol import DEFAULT_TIMES, ConnectionTimes
from extproc.outcomes.outcome import LogEntry


class ThinServer(ThinListener):
    """The server of `transport: thin`."""

    def __init__(
        self,
        config: ServerConfig,
        new_exchange: Callable[[], Exchange],
        handle_entries: Callable[[Iterable[LogEntry]], None],
        times: ConnectionTimes = DEFAULT_TIMES,
    ) -> None:
        self._new_exchange = new_exchange
        super().__init__(config, handle_entries, times)

    def methods(self) -> dict[str, NewHandler]:
        """Return the handlers of ext_proc and of the access log."""
        return {
            f"/{EXT_PROC_SERVICE}/Process": partial(ProcessCall, self, self._new_exchange, LargeMessages()),
            f"/{ACCESS_LOG_SERVICE}/StreamAccessLogs": partial(AccessLogCall, self),
        }
