"""A gRPC server on our own HTTP/2: what listens, and its connections. Its services are a subclass's.

A message is answered within the same turn of the event loop: no task, queue or thread per call.
"""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from extproc.adapters.descriptors import GRPC_SHARE, MAX_GRPC, share_of_descriptors
from extproc.adapters.envoy.services import HEALTH_SERVICE, EnvoyServer
from extproc.adapters.envoy.thin_calls import CheckCall, WatchCall
from extproc.adapters.envoy.tls_files import TlsFiles
from extproc.config.stages import ServerConfig
from extproc.errors import ProtocolError, StackError
from extproc.fleet.endpoint import host_and_port
from extproc.h2.grpc_call import NewHandler, UnfinishedMessages
from extproc.h2.grpc_connection import GrpcService
from extproc.h2.h2_limits import USUAL_LIMITS, Limits
from extproc.h2.protocol import ALPN_PROTOCOL, ConnectionTimes, GrpcProtocol
from extproc.outcomes.outcome import LogEntry

logger = logging.getLogger(__name__)

_UNIX = "unix://"
_BACKLOG = 1024
_LARGEST_MESSAGES = 8
"""Guessed: this many of the largest messages may be under way at once, 264 MiB by default. A message takes
some 30 ms on loopback; where more come together, Envoy lets the request pass (`failure_mode_allow`).
"""
_TLS_HANDSHAKE_S = 10.0  # guessed
_LAST_BYTES_S = 0.2  # guessed: time for the peers to learn of the end


class ThinListener(EnvoyServer):
    """Serves `methods` and health, from `start` to the end of `drain`; connections have `limits`."""

    may_assume_h2 = False

    def __init__(
        self,
        config: ServerConfig,
        handle_entries: Callable[[Iterable[LogEntry]], None],
        times: ConnectionTimes,
        limits: Limits = USUAL_LIMITS,
    ) -> None:
        super().__init__(config, handle_entries)
        self._times = times
        self._connections: set[GrpcProtocol] = set()
        self._emptied = asyncio.Event()
        self._is_flush_due = self._is_count_due = False
        self._max_connections = share_of_descriptors(GRPC_SHARE, MAX_GRPC)
        self._own_file: _SocketFile | None = None
        self._listener: asyncio.Server | None = None
        self.health_methods: dict[str, NewHandler] = {
            f"/{HEALTH_SERVICE}/Check": partial(CheckCall, self),
            f"/{HEALTH_SERVICE}/Watch": partial(WatchCall, self),
        }
        unfinished = UnfinishedMessages(_LARGEST_MESSAGES * config.max_message_bytes, self._refused)
        methods = {**self.methods(), **self.health_methods}
        self._service = GrpcService(
            methods, config.max_message_bytes, unfinished, self._refused, limits, self.may_assume_h2
        )

    @abstractmethod
    def methods(self) -> dict[str, NewHandler]:
        """Return the handlers of its calls by their paths."""

    async def start(self) -> int:
        """Listen, and report SERVING.

        Returns the port, 0 for a unix socket. Raises StackError where the address is taken, or a file for TLS
        cannot be used.
        """
        address = self._config.address
        try:
            self._listener = await self._listen(address)
        except OSError as error:
            raise StackError(f"gRPC server: cannot listen on {address}: {error}") from error
        self.is_serving = True
        name = self._listener.sockets[0].getsockname()
        return 0 if isinstance(name, str) else int(name[1])

    async def drain(self) -> None:
        """Report NOT_SERVING, end the streams cleanly, then stop; takes at most `drain_s`, and a moment."""
        self.is_draining = True
        self.is_serving = False
        self.stop_listening()
        for connection in tuple(self._connections):
            connection.drain()
        await self.until_closed(self._config.drain_s)
        for connection in tuple(self._connections):
            connection.finish()
        await self.until_closed(_LAST_BYTES_S)
        for connection in tuple(self._connections):
            connection.abort()
        self.log.handle_all()

    def flush_soon(self) -> None:
        """Write, once this step of the event loop is done, what has been sent on any connection."""
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write, now, what has been sent on any connection."""
        self._is_flush_due = False
        for connection in tuple(self._connections):
            connection.flush()

    def _make_room(self) -> None:
        """Close connections where there are too many: idle ones first, Envoy's come again when needed."""
        self._is_count_due = False
        excess = len(self._connections) - self._max_connections
        if excess > 0:
            self._refused(ProtocolError(f"more than {self._max_connections} connections"))
            for connection in sorted(self._connections, key=lambda each: each.worth)[:excess]:
                connection.abort()

    def is_behind(self) -> bool:
        """Return whether messages have been read that are still to be answered."""
        return any(connection.is_behind for connection in self._connections)

    async def until_closed(self, timeout_s: float) -> None:
        """Wait until there is no connection any more, but no longer than that."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._connections:
                    self._emptied.clear()
                    await self._emptied.wait()
        except TimeoutError:
            pass

    def stop_listening(self) -> None:
        """Take no more connections."""
        if self._listener is not None:
            self._listener.close()
        if self._own_file is not None:
            self._own_file.remove()

    async def _listen(self, address: str) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if address.startswith(_UNIX):
            path = address.removeprefix(_UNIX)
            # A socket file that was left behind is replaced, as grpcio does.
            listener = await loop.create_unix_server(self._new_connection, path, backlog=_BACKLOG)
            self._own_file = _SocketFile(Path(path))
            return listener
        host, port = host_and_port(address)
        tls = self._config.tls
        return await loop.create_server(
            self._new_connection,
            host,
            port,
            backlog=_BACKLOG,
            ssl=None if tls is None else TlsFiles(tls, ALPN_PROTOCOL).context,
            ssl_handshake_timeout=None if tls is None else _TLS_HANDSHAKE_S,
        )

    def _new_connection(self) -> GrpcProtocol:
        if not self._is_count_due:
            self._is_count_due = True
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._make_room)  # then the connection is made, and counts
        return GrpcProtocol(self._service, self._connections, self._emptied, self._times)


class _SocketFile:
    """Our unix socket's file. A successor may replace it while we drain: that one is not ours to remove."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = path.stat().st_ino

    def remove(self) -> None:
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
