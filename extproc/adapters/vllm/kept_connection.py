"""GET requests over one connection that is kept: how a backend is scraped.

A sidecar does this ten times a second for every busy backend, and hardly anything else as often; a general
HTTP client takes more than twice as long for it (`python -m benchmarks.scrape`). llhttp, Node's parser, reads
the answer (by way of httptools, https://github.com/MagicStack/httptools). The protocol is RFC 9112.
"""

import asyncio
import socket
import time
from dataclasses import dataclass
from typing import cast

import httptools

from extproc.adapters.vllm.server_tls import ServerTls

MAX_HEAD_BYTES = 64 * 1024
"""Guessed: for the head of an answer and the framing of its chunks, and a share of the body on top."""

_FRAMING_SHARE = 8
"""Guessed: one byte of framing for this many of the body. A chunk a line of metrics has one for twelve."""

_MAX_READS = 1024
_BYTES_PER_READ = 1024
_READ_S = 1e-5
"""Guessed: an answer comes in this many reads, and one more for this many bytes. Measured: each takes the
event loop some 10 us beside the parsing."""

_PARSED_AT_ONCE_BYTES = 64 * 1024
_LENGTH_HEADERS = frozenset({b"content-length", b"transfer-encoding"})


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer: its status, its body as it came, and where else it points to (`location`)."""

    status: int
    body: bytes
    location: bytes = b""


class AnswerTooLargeError(OSError):
    """The answer had more bytes than were allowed, or came in more pieces."""


class KeptConnection:
    """One server, asked one thing at a time; `host` may be a name, which is resolved with each connection."""

    def __init__(
        self,
        host: str,
        port: int,
        timeout_s: float,
        max_body_bytes: int,
        tls: ServerTls | None = None,
    ) -> None:
        self.authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._host, self._port, self._tls = host, port, tls
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._end_of_request = f" HTTP/1.1\r\nhost: {self.authority}\r\nuser-agent: extproc\r\n".encode()
        self._exchange: _Connection | None = None
        self._spent_s = 0.0

    @property
    def scheme(self) -> str:
        """That of URLs of this server."""
        return "http" if self._tls is None else "https"

    @property
    def spent_s(self) -> float:
        """The CPU that all answers together have taken, in seconds."""
        return self._spent_s + (self._exchange.spent_s if self._exchange is not None else 0.0)

    async def get(self, path: str, headers: bytes = b"") -> HttpAnswer:
        """Return the answer to a GET, a redirection included; each extra header has its end of line.

        Raises OSError where there is none: ConnectionRefusedError where nothing listens, TimeoutError,
        AnswerTooLargeError, ConnectionError for what is no HTTP.
        """
        request = b"GET " + path.encode() + self._end_of_request + headers + b"\r\n"
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask(request)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection up; the next request makes another."""
        if self._exchange is not None:
            self._spent_s += self._exchange.spent_s
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

    async def _connect(self) -> "_Connection":
        """Return the first of the name's addresses that answers; refused is only what all of them refuse."""
        loop = asyncio.get_running_loop()
        errors: list[OSError] = []
        tls = {} if self._tls is None else self._tls.options(self._host)
        for *_, address in await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM):
            try:
                _, exchange = await loop.create_connection(
                    lambda: _Connection(self._max_body_bytes), str(address[0]), self._port, **tls
                )
            except OSError as error:
                errors.append(error)
            else:
                return exchange
        others = [error for error in errors if not isinstance(error, ConnectionRefusedError)]
        raise (others or errors or [OSError(f"{self._host} has no address")])[0]


class _Connection(asyncio.Protocol):
    """A connection: what was asked, and what has come of the answer. The parser calls the `on_` methods.

    Parser, answer and this refer to each other, and collections of garbage are rare: what an answer has
    filled is let go when it has been taken or given up.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self.is_reusable = False
        self.received_bytes = 0
        self.spent_s = 0.0
        self._max_body_bytes = max_body_bytes
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self._body = bytearray()
        self._location = b""
        self._reads = 0
        self._has_head = self._has_length = False

    async def ask(self, request: bytes) -> HttpAnswer:
        self.is_reusable = False
        self.received_bytes = self._reads = 0
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the server has closed the connection")
        self._parser = httptools.HttpResponseParser(self)  # one reads no two answers
        self._has_head = self._has_length = False
        self._location = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._let_go()

    def abort(self) -> None:
        self._let_go()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.abort()  # it was not asked for
            return
        started_s = time.thread_time()
        self._reads += 1
        try:
            self._parse(data)
        except OSError as error:
            self._fail(error)
        self.spent_s += time.thread_time() - started_s + _READ_S

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._has_length = self._has_length or name in _LENGTH_HEADERS
        if name == b"location":
            self._location = value

    def on_headers_complete(self) -> None:
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > self._max_body_bytes:
            raise AnswerTooLargeError(f"more than {self._max_body_bytes} bytes")

    def on_message_complete(self) -> None:
        if self._parser is not None:
            self.is_reusable = self._parser.should_keep_alive()
            self._succeed(self._parser)

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_reusable = False
        if self._parser is not None and self._has_head and not self._has_length:
            self._succeed(self._parser)  # the end of the connection is that of the body
        else:
            self._fail(ConnectionResetError("the server has closed the connection"))

    def _parse(self, data: bytes) -> None:
        """Read a part of the answer; raises OSError where it is too much, or no answer."""
        for start in range(0, len(data), _PARSED_AT_ONCE_BYTES):
            piece = data[start : start + _PARSED_AT_ONCE_BYTES]
            self.received_bytes += len(piece)
            self._feed(piece)
            beside_bytes = self.received_bytes - len(self._body)
            if beside_bytes > MAX_HEAD_BYTES + len(self._body) // _FRAMING_SHARE:
                raise AnswerTooLargeError(f"{beside_bytes} bytes beside {len(self._body)} of the body")
        if self._reads > _MAX_READS + self.received_bytes // _BYTES_PER_READ:
            raise AnswerTooLargeError(f"{self.received_bytes} bytes in {self._reads} pieces")

    def _feed(self, piece: bytes) -> None:
        if self._parser is not None:
            try:
                self._parser.feed_data(piece)
            except httptools.HttpParserError as error:
                if isinstance(error.__context__, AnswerTooLargeError):
                    raise error.__context__ from error
                raise ConnectionError(f"not an HTTP answer: {error}") from error

    def _succeed(self, parser: httptools.HttpResponseParser) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(HttpAnswer(parser.get_status_code(), bytes(self._body), self._location))

    def _fail(self, error: OSError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.abort()

    def _let_go(self) -> None:
        self._answer = self._parser = None
        self._body = bytearray()
