"""The gRPC server that Envoy talks to, on our own HTTP/2: the same services as `grpc_server.py`, for less.

What arrives is answered within the same turn of the event loop: no task, queue or thread per call. When
draining, streams whose request has been placed are ended with OK, and Envoy lets those requests go on
without us.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from extproc.adapters.envoy.large_messages import LargeMessages
from extproc.adapters.envoy.services import ACCESS_LOG_SERVICE, EXT_PROC_SERVICE, HEALTH_SERVICE, EnvoyServer
from extproc.adapters.envoy.thin_calls import AccessLogCall, CheckCall, ProcessCall, WatchCall
from extproc.adapters.files.file_watch import FileSignature, file_signature
from extproc.config.stages import ServerConfig, TlsConfig
from extproc.errors import StackError
from extproc.exchange.exchange import Exchange
from extproc.h2.grpc_call import NewHandler
from extproc.h2.grpc_connection import GrpcService
from extproc.h2.protocol import ALPN_PROTOCOL, DEFAULT_TIMES, ConnectionTimes, GrpcProtocol
from extproc.outcomes.outcome import LogEntry

logger = logging.getLogger(__name__)

_UNIX = "unix://"
_BACKLOG = 1024
_TLS_HANDSHAKE_S = 10.0  # guessed
_LAST_BYTES_S = 0.2  # guessed: for the peers to be told of the end


class TlsFiles:
    """The certificates that a TLS server shows and asks for, from files that may be replaced while it runs.

    The files are looked at whenever a connection begins, which is rare: its handshake uses what they hold
    then. Where they cannot be used, say between the replacement of one and of the other, what is in use
    stays. `context` is the server's: it belongs to no connection, but every handshake begins with it.
    """

    def __init__(self, config: TlsConfig, alpn_protocol: str) -> None:
        """Raises OSError where the files cannot be used; ssl.SSLError is one."""
        self._config = config
        self._alpn_protocol = alpn_protocol
        paths = (config.cert_path, config.key_path, config.client_ca_path)
        self._paths = tuple(path for path in paths if path is not None)
        self._signature = self._look()
        self._newest = self.context = self._load()
        # Called for every handshake, also without a server name: typeshed knows no None there.
        self.context.sni_callback = self._choose

    def _choose(self, tls: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        signature = self._look()
        if signature != self._signature:
            self._signature = signature
            try:
                self._newest = self._load()
            except OSError as error:
                logger.error("tls_files_refused error=%s", error)
            else:
                logger.info("tls_files_loaded cert=%s", self._config.cert_path)
        tls.context = self._newest

    def _look(self) -> tuple[FileSignature | None, ...]:
        return tuple(file_signature(path) for path in self._paths)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9113, 9.2
        context.set_alpn_protocols([self._alpn_protocol])
        # Connections last, so resumption saves nothing; a session could outlive the trust that it began with.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.load_cert_chain(self._config.cert_path, self._config.key_path)
        if self._config.client_ca_path is not None:
            context.load_verify_locations(self._config.client_ca_path)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class ThinServer(EnvoyServer):
    """The server of `transport: thin`."""

    def __init__(
        self,
        config: ServerConfig,
        new_exchange: Callable[[], Exchange],
        handle_entries: Callable[[Iterable[LogEntry]], None],
        times: ConnectionTimes = DEFAULT_TIMES,
    ) -> None:
        super().__init__(config, new_exchange, handle_entries)
        self._times = times
        self._connections: set[GrpcProtocol] = set()
        self._emptied = asyncio.Event()
        self._is_flush_due = False
        self._own_file: _SocketFile | None = None
        self._listener: asyncio.Server | None = None
        methods: dict[str, NewHandler] = {
            f"/{EXT_PROC_SERVICE}/Process": partial(ProcessCall, self, LargeMessages()),
            f"/{ACCESS_LOG_SERVICE}/StreamAccessLogs": partial(AccessLogCall, self),
            f"/{HEALTH_SERVICE}/Check": partial(CheckCall, self),
            f"/{HEALTH_SERVICE}/Watch": partial(WatchCall, self),
        }
        self._service = GrpcService(methods, config.max_message_bytes, self._refused)

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
        self._stop_listening()
        for connection in tuple(self._connections):
            connection.drain()
        await self._until_closed(self._config.drain_s)
        for connection in tuple(self._connections):
            connection.finish()
        await self._until_closed(_LAST_BYTES_S)
        for connection in tuple(self._connections):
            connection.abort()

    def flush_soon(self) -> None:
        """Write, once this step of the event loop is done, what has been sent on any connection."""
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        for connection in tuple(self._connections):
            connection.flush()

    async def _until_closed(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while self._connections:
                    self._emptied.clear()
                    await self._emptied.wait()
        except TimeoutError:
            pass

    def _stop_listening(self) -> None:
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
        host, _, port = address.rpartition(":")
        tls = self._config.tls
        return await loop.create_server(
            self._new_connection,
            host.strip("[]"),
            int(port),
            backlog=_BACKLOG,
            ssl=None if tls is None else TlsFiles(tls, ALPN_PROTOCOL).context,
            ssl_handshake_timeout=None if tls is None else _TLS_HANDSHAKE_S,
        )

    def _new_connection(self) -> GrpcProtocol:
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
