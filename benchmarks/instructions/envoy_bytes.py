"""The bytes that Envoy sends for some requests, in the frames and reads in which it sends them.

Several requests come with a read, as under load: the headers of all of them, then their bodies, then their
ends, after each of which Envoy resets the stream. The access log comes in messages of some dozens of entries.
"""

from collections.abc import Iterator

from benchmarks.h2_exchange import REQUEST, stateless
from benchmarks.overhead.load import chat_request
from extproc.adapters.envoy.ext_proc_wire import METADATA_NAMESPACE
from extproc.adapters.envoy.services import ACCESS_LOG_SERVICE
from extproc.adapters.protos import access_log_pb2, ext_proc_pb2
from extproc.h2 import frames
from extproc.h2.events import ErrorCode
from extproc.h2.grpc_wire import PREFIX_BYTES, prefixed
from extproc.outcomes.server_times import DECODE_TAG, HEADERS_TAG, TTFT_TAG

PER_READ = 6
"""Measured: so many requests come with a read at 32 in flight."""

IN_FLIGHT = 30
ENTRIES_PER_MESSAGE = 50
LOG_STREAM = 1
_MAX_FRAME = 16_384
FIRST_STREAM = 3
_BLOCK = stateless(REQUEST)
_LOG_BLOCK = stateless(
    tuple(
        (name, f"/{ACCESS_LOG_SERVICE}/StreamAccessLogs" if name == ":path" else text)
        for name, text in REQUEST
    )
)


def opening() -> bytes:
    """Begin a connection, acknowledge its settings, and open the access log's stream."""
    settings = frames.frame(frames.SETTINGS, 0, 0) + frames.frame(frames.SETTINGS, frames.ACK, 0)
    log = frames.frame(frames.HEADERS, frames.END_HEADERS, LOG_STREAM, _LOG_BLOCK)
    return frames.PREFACE + settings + frames.window_update(0, 2**30) + log


def headers_message(body_bytes: int) -> bytes:
    """Return the first message of a request: what envoy.yaml forwards of its headers."""
    message = ext_proc_pb2.ProcessingRequest()
    headers = {":method": "POST", ":path": "/v1/chat/completions", "content-length": str(body_bytes)}
    for name, value in headers.items():
        message.request_headers.headers.headers.add(key=name, raw_value=value.encode())
    return message.SerializeToString()


def body_message(chunks: int) -> bytes:
    """Return the second message of a chat completion; with `chunks` of one that is to be streamed."""
    message = ext_proc_pb2.ProcessingRequest()
    message.request_body.body = chat_request(chunks).partition(b"\r\n\r\n")[2]
    message.request_body.end_of_stream = True
    return message.SerializeToString()


def request_reads(streams: range, chunks: int) -> Iterator[bytes]:
    """Yield the reads of requests on some streams, from their headers to their ends."""
    body = body_message(chunks)
    head = prefixed(headers_message(len(body)))
    for in_flight in _groups(streams, IN_FLIGHT):
        for group in _groups(in_flight, PER_READ):
            yield b"".join(
                frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, _BLOCK)
                + frames.frame(frames.DATA, 0, stream_id, head)
                for stream_id in group
            )
            yield b"".join(frames.frame(frames.DATA, 0, stream_id, prefixed(body)) for stream_id in group)
        for group in _groups(in_flight, PER_READ):
            yield b"".join(
                frames.frame(frames.DATA, frames.END_STREAM, stream_id)
                + frames.rst_stream(stream_id, ErrorCode.NO_ERROR)
                for stream_id in group
            )


def log_reads(answers: list[ext_proc_pb2.ProcessingResponse]) -> Iterator[bytes]:
    """Yield the reads with the access log of the requests that were answered so."""
    for at in range(0, len(answers), ENTRIES_PER_MESSAGE):
        data = prefixed(log_message(answers[at : at + ENTRIES_PER_MESSAGE]))
        pieces = (data[start : start + _MAX_FRAME] for start in range(0, len(data), _MAX_FRAME))
        yield b"".join(frames.frame(frames.DATA, 0, LOG_STREAM, piece) for piece in pieces)


def message_in(read: bytes) -> bytes:
    """Return the message in a read of the access log."""
    pieces, at = [], 0
    while at < len(read):
        start = at + frames.HEADER_BYTES
        at = start + int.from_bytes(read[at : at + 3])
        pieces.append(read[start:at])
    return b"".join(pieces)[PREFIX_BYTES:]


def log_message(answers: list[ext_proc_pb2.ProcessingResponse]) -> bytes:
    """Return a message of the access log, of exchanges that went well."""
    message = access_log_pb2.StreamAccessLogsMessage()
    for number, answer in enumerate(answers):
        entry = message.http_logs.log_entry.add()
        common = entry.common_properties
        common.start_time.FromMilliseconds(1_795_370_171_000 + number)
        common.duration.FromMilliseconds(60)
        common.upstream_request_attempt_count = 1
        common.metadata.filter_metadata[METADATA_NAMESPACE].CopyFrom(
            answer.dynamic_metadata.fields[METADATA_NAMESPACE].struct_value
        )
        times = {TTFT_TAG: str(40_000 + number), DECODE_TAG: "15000", HEADERS_TAG: "1200"}
        for tag, text in times.items():
            common.custom_tags[tag] = text
        entry.response.response_code.value = 200
        entry.response.response_body_bytes = 2_000
    return message.SerializeToString()


def answers_in(sent: bytes) -> list[ext_proc_pb2.ProcessingResponse]:
    """Return the answers with metadata among what a server has sent."""
    answers, at = [], 0
    while at < len(sent):
        kind, start = sent[at + 3], at + frames.HEADER_BYTES
        at = start + int.from_bytes(sent[at : at + 3])
        if kind == frames.DATA and at > start:
            answer = ext_proc_pb2.ProcessingResponse.FromString(sent[start + PREFIX_BYTES : at])
            if answer.HasField("dynamic_metadata"):
                answers.append(answer)
    return answers


def _groups(streams: range, size: int) -> Iterator[range]:
    return (streams[at : at + size] for at in range(0, len(streams), size))
