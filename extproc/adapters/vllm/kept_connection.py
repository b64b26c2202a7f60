"""GET requests over one connection that is kept: how a backend is scraped.

A sidecar does this ten times a second for every busy backend, and hardly anything else as often; a general
HTTP client takes more than twice as long for it (`python -m benchmarks.scrape`). llhttp, Node's parser, reads
the answer (by way of httptools, https://github.com/MagicStack/httptools). The protocol is RFC 9112.
"""

import asyncio
import socket
from dataclasses import dataclass
from typing import cast

import httptools

_MAX_HEAD_BYTES = 64 * 1024
_LENGTH_HEADERS = frozenset({b"content-length", b"transfer-encoding"})


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer: its status, and its body as it came."""

    status: int
    body: bytes


class AnswerTooLargeError(OSError):
    """The answer had more bytes than were allowed."""


class KeptConnection:
    """One server, asked one thing at a time; `host` may be a name, which is resolved with each connection."""

    def __init__(self, host: str, port: int, timeout_s: float, max_body_bytes: int) -> None:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._host, self._port = host, port
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._end_of_request = f" HTTP/1.1\r\nhost: {authority}\r\nuser-agent: extproc\r\n\r\n".encode()
        self._exchange: _Exchange | None = None

    async def get(self, path: str) -> HttpAnswer:
        """The answer to a GET, a redirection included.

        Raises OSError where there is none: ConnectionRefusedError where nothing listens, TimeoutError,
        AnswerTooLargeError, ConnectionError for what is no HTTP.
        """
        request = b"GET " + path.encode() + self._end_of_request
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask(request)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection up; the next request makes another."""
        if self._exchange is not None:
            self._exchange.abort()
            self._exchange = None

    async def _ask(self, request: bytes) -> HttpAnswer:
        kept = self._exchange
        if kept is not None and kept.is_reusable:
            try:
                return await kept.ask(request)
            except ConnectionResetError:
                if kept.received_bytes:
                    raise
                # The server gave it up while nothing was asked: that says nothing of the server.
        self.close()
        self._exchange = await self._connect()
        return await self._exchange.ask(request)

    async def _connect(self) -> "_Exchange":
        """The first of the name's addresses that answers; refused is only what all of them refuse."""
        loop = asyncio.get_running_loop()
        errors: list[OSError] = []
        for *_, address in await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM):
            try:
                _, exchange = await loop.create_connection(
                    lambda: _Exchange(self._max_body_bytes), str(address[0]), self._port
                )
            except OSError as error:
                errors.append(error)
            else:
                return exchange
        others = [error for error in errors if not isinstance(error, ConnectionRefusedError)]
        raise (others or errors or [OSError(f"{self._host} has no address")])[0]


class _Exchange(asyncio.Protocol):
    """A connection: what was asked, and what has come of the answer. The parser calls the `on_` methods."""

    _parser: httptools.HttpResponseParser
    """Of the last answer that was asked for; one reads no two."""

    def __init__(self, max_body_bytes: int) -> None:
        self.is_reusable = False
        self.received_bytes = 0
        self._max_body_bytes = max_body_bytes
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self._body = bytearray()
        self._has_head = self._has_length = False

    async def ask(self, request: bytes) -> HttpAnswer:
        self.is_reusable = False
        self.received_bytes = 0
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the server has closed the connection")
        self._parser = httptools.HttpResponseParser(self)
        self._body.clear()
        self._has_head = self._has_length = False
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def abort(self) -> None:
        self._body.clear()  # parser, error and this refer to each other: only a collection would free it
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.abort()  # nobody has asked for it
            return
        self.received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"not an HTTP answer: {error}"))
        if self.received_bytes - len(self._body) > _MAX_HEAD_BYTES + self._max_body_bytes:
            self._fail(AnswerTooLargeError(f"more than {_MAX_HEAD_BYTES} bytes beside the body"))

    def on_header(self, name: bytes, _value: bytes) -> None:
        self._has_length = self._has_length or name.lower() in _LENGTH_HEADERS

    def on_headers_complete(self) -> None:
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > self._max_body_bytes:
            self._fail(AnswerTooLargeError(f"more than {self._max_body_bytes} bytes"))

    def on_message_complete(self) -> None:
        self.is_reusable = self._parser.should_keep_alive()
        self._succeed()

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_reusable = False
        if self._has_head and not self._has_length:  # then the end of the connection is that of the body
            self._succeed()
        else:
            self._fail(ConnectionResetError("the server has closed the connection"))

    def _succeed(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(HttpAnswer(self._parser.get_status_code(), bytes(self._body)))

    def _fail(self, error: OSError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.abort()
