"""A client for the tests: the `h2` library, or single frames, against a `ServerConnection` in memory."""

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack

from extproc.h2 import frames
from extproc.h2.connection import ServerConnection
from extproc.h2.events import ConnectionEnded, ErrorCode, Event
from extproc.h2.frames import PREFACE
from extproc.h2.h2_limits import Limits

FIELDS = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/package.Service/Method"),
    (b":authority", b"extproc"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
)


def block(fields: tuple[tuple[bytes, bytes], ...] = FIELDS) -> bytes:
    """Without a dynamic table, as it must be once our SETTINGS are acknowledged."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return bytes(encoder.encode([hpack.NeverIndexedHeaderTuple(*pair) for pair in fields]))


REQUEST = block()
ANSWER = block(((b":status", b"200"), (b"content-type", b"application/grpc")))
TRAILERS = block(((b"grpc-status", b"0"),))


def headers(stream_id: int, fields_block: bytes = REQUEST, flags: int = frames.END_HEADERS) -> bytes:
    return frames.frame(frames.HEADERS, flags, stream_id, fields_block)


def data(stream_id: int, payload: bytes = b"x", flags: int = 0) -> bytes:
    return frames.frame(frames.DATA, flags, stream_id, payload)


def settings(*pairs: tuple[int, int]) -> bytes:
    payload = b"".join(key.to_bytes(2) + value.to_bytes(4) for key, value in pairs)
    return frames.frame(frames.SETTINGS, 0, 0, payload)


DEFAULT = Limits()
SETTINGS_ACK = frames.frame(frames.SETTINGS, frames.ACK, 0)


class Peer:
    """Sends frames one by one to a greeted server, and reads what it answers."""

    def __init__(self, limits: Limits = DEFAULT, *pairs: tuple[int, int]) -> None:
        self.server = ServerConnection(limits)
        self.now_s = 0.0
        self.events: list[Event] = []
        self.send(PREFACE + settings(*pairs) + SETTINGS_ACK)

    def send(self, raw: bytes) -> list[tuple[int, int, int, bytes]]:
        """The frames of the answer: type, flags, stream id, payload."""
        self.events = self.server.receive(raw, self.now_s)
        return self.read()

    def read(self) -> list[tuple[int, int, int, bytes]]:
        found, written = [], self.server.data_to_send()
        while written:
            size = int.from_bytes(written[:3])
            found.append((written[3], written[4], int.from_bytes(written[5:9]), written[9 : 9 + size]))
            written = written[9 + size :]
        return found

    def verdict(self, raw: bytes) -> tuple[str, ErrorCode] | None:
        """What a frame is answered with: an error of a stream, of the connection, or none."""
        found = {kind: payload for kind, _, _, payload in self.send(raw)}
        if goaway := found.get(frames.GOAWAY):
            assert self.server.is_closed
            assert isinstance(self.events[-1], ConnectionEnded)
            return "connection", ErrorCode(int.from_bytes(goaway[4:8]))
        if reset := found.get(frames.RST_STREAM):
            assert not self.server.is_closed
            return "stream", ErrorCode(int.from_bytes(reset))
        return None


class H2Client:
    """The `h2` library; it raises if the server breaks a rule."""

    def __init__(self, limits: Limits = DEFAULT, **initial: int) -> None:
        self.server = ServerConnection(limits)
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.client.local_settings = h2.settings.Settings(
            client=True,
            initial_values={h2.settings.SettingCodes[name]: value for name, value in initial.items()},
        )
        self.client.initiate_connection()
        self.received: list[h2.events.Event] = []
        self.events: list[Event] = []
        self.exchange()

    def exchange(self) -> None:
        """Carry bytes both ways until both are silent."""
        while to_server := self.client.data_to_send():
            self.events += self.server.receive(to_server, 0.0)
            self.received += self.client.receive_data(self.server.data_to_send())
        self.to_client()

    def to_client(self) -> None:
        if to_client := self.server.data_to_send():
            self.received += self.client.receive_data(to_client)
            self.exchange()
