"""The `h2` library as a client that sends whatever frames a test wants, also such as no good client would."""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
from support.patience import PATIENCE_S

Headers = Sequence[tuple[str, str]]

_GOAWAY = 7


def call_headers(path: str, *more: tuple[str, str]) -> Headers:
    """What a gRPC client sends."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "extproc"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *more,
    ]


def prefixed(message: bytes, flag: int = 0) -> bytes:
    """gRPC's framing."""
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


class Answer:
    """What has come on a stream so far."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.data = b""
        self.is_ended = False
        self.reset_code: int | None = None

    @property
    def messages(self) -> list[bytes]:
        """The whole messages in its data."""
        found, at = [], 0
        while at + 5 <= len(self.data):
            end = at + 5 + int.from_bytes(self.data[at + 1 : at + 5], "big")
            if end > len(self.data):
                break
            found.append(self.data[at + 5 : end])
            at = end
        return found

    @property
    def status(self) -> int | None:
        """The gRPC status, once it is there; a response without messages has it in its headers."""
        text = self.trailers.get("grpc-status", self.headers.get("grpc-status"))
        return None if text is None else int(text)

    @property
    def text(self) -> str | None:
        """The status's message, as it was sent."""
        return self.trailers.get("grpc-message", self.headers.get("grpc-message"))


class H2Client:
    """One connection; `answers` by stream, and what the server said of the connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.answers: dict[int, Answer] = defaultdict(Answer)
        self.go_away_code: int | None = None
        self.is_closed = False
        self.is_updating_windows = True
        self.pongs = 0
        self.agreed_settings: set[int] = set()
        self._reader, self._writer = reader, writer
        self._arrived = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    def begin(self, path: str, *more: tuple[str, str], end_stream: bool = False) -> int:
        """Open a stream."""
        return self.begin_with(call_headers(path, *more), end_stream=end_stream)

    def begin_with(self, headers: Headers, *, end_stream: bool = False) -> int:
        """Open a stream with any headers."""
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, headers, end_stream=end_stream)
        self.flush()
        return stream_id

    def send(
        self, stream_id: int, data: bytes, *, end_stream: bool = False, padding: int | None = None
    ) -> None:
        """DATA, in one frame."""
        self.h2.send_data(stream_id, data, end_stream=end_stream, pad_length=padding)
        self.flush()

    def flush(self) -> None:
        """Write what the library has to send."""
        self.write(self.h2.data_to_send())

    def write(self, data: bytes) -> None:
        """Any bytes."""
        self._writer.write(data)

    def abort(self) -> None:
        """Close the socket without a word."""
        self._writer.transport.abort()

    def read_nothing(self) -> None:
        """Let everything pile up that the server sends from here on."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # which typeshed hides

    @property
    def is_broken(self) -> bool:
        """Whether a write has found that the server has closed."""
        return self._writer.transport.is_closing()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for the server."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                if self._reading.done():
                    self._reading.result()  # what the library finds fault with
                self._arrived.clear()
                await self._arrived.wait()

    async def message(self, stream_id: int, number: int = 0) -> bytes:
        """A message of a stream's answer."""
        answer = self.answers[stream_id]
        await self.until(lambda: len(answer.messages) > number or answer.is_ended or self.is_closed)
        return answer.messages[number]

    async def ended(self, stream_id: int) -> Answer:
        """A stream's whole answer."""
        answer = self.answers[stream_id]
        await self.until(lambda: answer.is_ended or answer.reset_code is not None or self.is_closed)
        return answer

    async def close(self) -> None:
        """End the connection."""
        self._writer.close()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                frame = head + await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                self._take_frame(frame)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # that the server has closed is what a test may wait for
        finally:
            self.is_closed = True
            self._arrived.set()

    def _take_frame(self, frame: bytes) -> None:
        if frame[3] == _GOAWAY:  # after which the library would take nothing more
            self.go_away_code = int.from_bytes(frame[13:17], "big")
        else:
            for event in self.h2.receive_data(frame):
                self._take(event)
            self.flush()
        self._arrived.set()

    def _take(self, event: Any) -> None:
        match event:
            case h2.events.ResponseReceived():
                self.answers[event.stream_id].headers = dict(event.headers)
            case h2.events.DataReceived():
                self.answers[event.stream_id].data += event.data
                if self.is_updating_windows and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.TrailersReceived():
                self.answers[event.stream_id].trailers = dict(event.headers)
            case h2.events.StreamEnded():
                self.answers[event.stream_id].is_ended = True
            case h2.events.StreamReset():
                self.answers[event.stream_id].reset_code = event.error_code
            case h2.events.PingAckReceived():
                self.pongs += 1
            case h2.events.SettingsAcknowledged():
                self.agreed_settings |= event.changed_settings.keys()


@asynccontextmanager
async def connected(
    port: int,
    settings: dict[h2.settings.SettingCodes, int] | None = None,
    tls: ssl.SSLContext | None = None,
    path: str | None = None,
) -> AsyncIterator[H2Client]:
    """A connection to 127.0.0.1:`port`, or to the unix socket `path`, greeted with `settings`."""
    if path is not None:
        reader, writer = await asyncio.open_unix_connection(path)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    client = H2Client(reader, writer)
    client.h2.initiate_connection()
    if settings:
        client.h2.update_settings(settings)
    client.flush()
    try:
        if settings:
            await client.until(lambda: client.agreed_settings >= settings.keys())
        yield client
    finally:
        await client.close()
