"""What Envoy sends, or whoever reaches its port: access logs, and gRPC with messages in any order."""

import time

import hpack
import msgspec
from fuzz.sidecar_parts import parts

from extproc.adapters.envoy.access_log_wire import decode_entries
from extproc.adapters.envoy.services import EXT_PROC_SERVICE
from extproc.adapters.files.sample_table import COLUMNS, row_of
from extproc.adapters.protos import ext_proc_pb2 as pb
from extproc.errors import ProtocolError
from extproc.h2.frames import PREFACE
from extproc.h2.grpc_connection import GrpcConnection
from extproc.h2.grpc_wire import prefixed
from extproc.outcomes.facts import FACTS_KEY
from extproc.outcomes.outcome import LogEntry
from extproc.outcomes.server_times import COMMENTS_KEY, HEADERS_TAG, TTFT_TAG

STEP = b"~~"
"""Where one step of an exchange ends and the next begins."""
_FRAME_BYTES = 16_384
_DATA, _HEADERS, _RST_STREAM, _SETTINGS = 0, 1, 3, 4
_END_STREAM, _END_HEADERS = 1, 4
_MAX_STREAMS = 8


def access_log(data: bytes) -> None:
    """One message of the access log service, and what is learned from its entries."""
    try:
        entries = list(decode_entries(data))
    except ProtocolError:
        return
    learn(entries)


def facts(data: bytes) -> None:
    """What came back of a decision, as JSON; `@version@` is the version of the model in use."""
    head, text = data[:3].ljust(3, b"\0"), data[3:].decode("utf-8", "replace")
    metadata = {FACTS_KEY: text.replace("@version@", parts().offer_shipped_model())}
    status = (200, 200, 0, 404, 500, 503, 2**32 - 1)[head[0] % 7]
    flags = frozenset(("UF", "DC", "UC", "NR")[: head[1] % 5])
    times = ("1500000", "1", "86400000000", "-", "nan", "1e308", "-1", "")
    tags = {TTFT_TAG: times[head[2] % 8], HEADERS_TAG: times[head[2] // 8 % 8]}
    if head[2] & 64:
        metadata[COMMENTS_KEY] = times[head[2] // 8 % 8]
    learn([LogEntry(1.7e9, 2.0, status, 1 + head[1] // 128, flags, 2**64 - 1, metadata, tags)])


def learn(entries: list[LogEntry]) -> None:
    sidecar = parts()
    for entry in entries:
        outcome = sidecar.core.feedback.learn(entry, time.monotonic())
        if outcome is not None:
            assert len(row_of(outcome.sample)) == len(COLUMNS)
            msgspec.json.encode(outcome.sample)
    sidecar.check()
    assert len(sidecar.core.feedback.counts.by_result) <= 100, "labels are bounded"
    assert len(sidecar.core.feedback.counts.ttft) <= len(sidecar.backends)


class Peer:
    """One HTTP/2 connection of Envoy's to the sidecar's gRPC server."""

    def __init__(self) -> None:
        self.encoder = hpack.Encoder()
        self.server = GrpcConnection(parts().service, lambda delay_s, then: Timer())
        self.newest = -1
        self.write(PREFACE + _frame(_SETTINGS, 0, 0, b""))

    def write(self, data: bytes) -> None:
        self.server.receive(data, time.monotonic())
        while self.server.handle_some():
            pass
        self.server.data_to_send()

    def open(self) -> None:
        if self.newest > 2 * _MAX_STREAMS:
            return
        self.newest += 2
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": f"/{EXT_PROC_SERVICE}/Process",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        block = self.encoder.encode(fields.items())
        self.write(_frame(_HEADERS, _END_HEADERS, self.newest, block))

    def send(self, stream_id: int, data: bytes, flags: int = 0) -> None:
        for start in range(0, max(1, len(data)), _FRAME_BYTES):
            self.write(_frame(_DATA, flags, stream_id, data[start : start + _FRAME_BYTES]))

    def step(self, step: bytes) -> None:
        """First what to do, then on which stream, then what to send."""
        kind, which, content = step[:1], step[1:2], step[2:]
        if kind == b"o" or self.newest < 0:
            self.open()
        stream_id = 1 + 2 * (which[0] % _MAX_STREAMS) if which else self.newest
        match kind:
            case b"d":
                self.send(stream_id, content)
            case b"e":
                self.send(stream_id, content, _END_STREAM)
            case b"r":
                self.write(_frame(_RST_STREAM, 0, stream_id, b"\0\0\0\x08"))
            case b"m":
                self.send(stream_id, prefixed(content))
            case b"h" | b"H":
                self.send(stream_id, prefixed(headers(content, end_of_stream=kind == b"H")))
            case b"b":
                message = pb.ProcessingRequest(request_body=pb.HttpBody(body=content))
                self.send(stream_id, prefixed(message.SerializeToString()))
            case b"w":
                parts().queue.advance(time.monotonic())
            case b"t":
                message = pb.ProcessingRequest(response_trailers=pb.HttpTrailers())
                self.send(stream_id, prefixed(message.SerializeToString()))


class Timer:
    """A deadline that does not come."""

    def cancel(self) -> None:
        """It shall not happen."""


def headers(path: bytes, *, end_of_stream: bool) -> bytes:
    """The message with a request's headers."""
    received = pb.HttpHeaders(end_of_stream=end_of_stream)
    for name, value in ((":method", b"POST"), (":path", path or b"/v1/chat/completions")):
        received.headers.headers.add(key=name, raw_value=value)
    return pb.ProcessingRequest(request_headers=received).SerializeToString()


def _frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream_id.to_bytes(4) + payload


def exchange(data: bytes) -> None:
    """Exchanges on one connection, which is lost in the end: then every place is free again."""
    sidecar = parts()
    peer = Peer()
    for step in data.split(STEP):
        peer.step(step)
        assert sidecar.own <= peer.server.open_calls == sidecar.server.open_streams
    peer.server.connection_lost()
    assert (sidecar.own, peer.server.open_calls, sidecar.server.open_streams) == (0, 0, 0)
    assert all(backend.own == 0 for backend in sidecar.backends)
    assert sidecar.queue.waiting == 0
