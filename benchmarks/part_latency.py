"""How long a picker keeps a part of a response while it has half a core of work.

This process stands in the gateway's place, with one connection: it sends the parts of many streams at random
times. The time of a part is from just before its sending to the moment at which the kernel has its return, so
that no delay of this process counts. It and the picker have a core each. A new request follows a stream that
has ended: placing and learning are part of the work.
"""

import gc
import heapq
import os
import random
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.h2_exchange import stateless
from benchmarks.overhead.load import chat_request
from benchmarks.overhead.processes import Process
from benchmarks.streams import FIELDS, resident_bytes
from extproc.adapters.protos import ext_proc_pb2 as pb
from extproc.h2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, window_update
from extproc.h2.grpc_wire import prefixed

PARTS = 400
STREAMS, OPEN = 256, 1000


class Arrivals(NamedTuple):
    """At random times `together` parts follow each other, each `gap_s` after the one before."""

    name: str
    together: int = 1
    gap_s: float = 0.0


SINGLE = Arrivals("each at a time of its own")
STEPS = Arrivals("32 of an engine's step", 32, 50e-6)
"""Measured: vLLM 0.32 writes the parts of a step one after the other, from 32 requests within 2 ms."""
AT_ONCE = Arrivals("32 at one moment", 32)
HALF = 0.5
_PARTS_PASSED, _CLOSING_S = 25, 0.5
_FIRST_PARTS_PER_S, _TRIALS, _TRIAL_S = 10_000.0, 3, 1.0
EVENT = b'data: {"id":"chatcmpl-92b9d3937f89e633","object":"chat.completion.chunk","created":1795370171,'
EVENT += b'"model":"bench","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
_FULL_DUPLEX = "FULL_DUPLEX_STREAMED"
_FRAME_BYTES = 9
_LARGEST_WINDOW = (1 << 31) - 1
_WINDOW_BYTES = 1 << 24


def _message(**fields: Any) -> bytes:
    return prefixed(pb.ProcessingRequest(**fields).SerializeToString())


def _headers(*pairs: tuple[str, bytes]) -> pb.HttpHeaders:
    return pb.HttpHeaders(
        headers=pb.HeaderMap(headers=[pb.HeaderValue(key=key, raw_value=value) for key, value in pairs])
    )


_MODES = pb.ProtocolConfiguration(request_body_mode=_FULL_DUPLEX, response_body_mode=_FULL_DUPLEX)
_REQUEST_HEADERS = _message(
    request_headers=_headers((":path", b"/v1/chat/completions"), (":method", b"POST")), protocol_config=_MODES
)
_REQUEST_BODY = _message(
    request_body=pb.HttpBody(body=chat_request(PARTS).partition(b"\r\n\r\n")[2], end_of_stream=True)
)
_RESPONSE_HEADERS = _message(
    response_headers=_headers((":status", b"200"), ("content-type", b"text/event-stream"))
)
_PART = _message(response_body=pb.HttpBody(body=EVENT))
_LAST_PART = _message(response_body=pb.HttpBody(end_of_stream=True))
_REQUEST_ANSWERS = 2
"""To the headers of the request, and to its body. Then the response begins; its headers are answered too."""
_TIMESTAMPS = 35
"""SO_TIMESTAMPNS of Linux: with what is read comes when the kernel got the last of it, as a `timespec`."""
_TIMESPEC = struct.Struct("ll")


@dataclass(slots=True)
class Latencies:
    """The times of all parts that were handed back, sorted; `late_s` is the sender's own longest delay."""

    parts_s: list[float] = field(default_factory=list)
    late_s: float = 0.0

    def at(self, fraction: float) -> float:
        """A percentile."""
        return self.parts_s[min(int(len(self.parts_s) * fraction), len(self.parts_s) - 1)]

    def share_above(self, limit_s: float) -> float:
        """The share of parts that took longer."""
        return sum(each > limit_s for each in self.parts_s) / len(self.parts_s)


@dataclass(frozen=True, slots=True)
class AtHalf:
    """The load that took half a core, in fact `core` of one, and what came of it."""

    parts_per_s: float
    core: float
    latencies: Latencies


def at_half_a_core(server: Process, port: int, arrivals: Arrivals, duration_s: float) -> AtHalf:
    """Find the rate at which the server takes half a core, and measure at that rate."""
    parts_per_s = _FIRST_PARTS_PER_S
    with _cores_apart(server), closing(PartSender(port, STREAMS)) as sender:
        for _ in range(_TRIALS):
            core, latencies = _loaded(server, sender, parts_per_s, arrivals, _TRIAL_S)
            parts_per_s = len(latencies.parts_s) / _TRIAL_S * HALF / core
        core, latencies = _loaded(server, sender, parts_per_s, arrivals, duration_s)
    return AtHalf(parts_per_s, core, latencies)


@contextmanager
def _cores_apart(server: Process) -> Iterator[None]:
    """Keep this process off the server's core, where there are two."""
    cores = os.sched_getaffinity(0)
    own = {max(cores)}
    if len(cores) > 1:
        os.sched_setaffinity(0, own)
        os.sched_setaffinity(server.pid, cores - own)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        os.sched_setaffinity(server.pid, cores)


def open_streams_bytes(server: Process, port: int) -> int:
    """The growth of the server's memory while `OPEN` streams are open, each with some KB passed on."""
    grown = 0
    for _ in range(2):  # the first time something stays
        before = resident_bytes(server.pid)
        sender = PartSender(port, OPEN)
        sender.run(2 * OPEN * _PARTS_PASSED, AT_ONCE, 0.5)
        grown = resident_bytes(server.pid) - before
        sender.close()
        time.sleep(_CLOSING_S)
    return grown


def _loaded(
    server: Process, sender: "PartSender", parts_per_s: float, arrivals: Arrivals, duration_s: float
) -> tuple[float, Latencies]:
    """The share of a core that the server took, and the latencies."""
    cpu_s, begun_s = server.cpu_s(), time.perf_counter()
    latencies = sender.run(parts_per_s, arrivals, duration_s)
    return (server.cpu_s() - cpu_s) / (time.perf_counter() - begun_s), latencies


def _due_times(
    parts_per_s: float, arrivals: Arrivals, begins_s: float, rng: random.Random
) -> Iterator[float]:
    """Yield the time of each part, in order and without end."""
    waiting: list[float] = []
    while True:
        while not waiting or begins_s <= waiting[0]:
            for number in range(arrivals.together):
                heapq.heappush(waiting, begins_s + number * arrivals.gap_s)
            begins_s += rng.expovariate(parts_per_s / arrivals.together)
        yield heapq.heappop(waiting)


class _Stream:
    """One request: parts that are `left` to send, answers that come before theirs, and `unanswered` parts."""

    __slots__ = ("before", "left", "unanswered")

    def __init__(self, left: int) -> None:
        self.left = left
        self.before = _REQUEST_ANSWERS + 1
        self.unanswered = deque[float]()


class PartSender:
    """A gateway's connection to 127.0.0.1:`port`, with this many streams open at once."""

    def __init__(self, port: int, streams: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _TIMESTAMPS, 1)
        self._next_id = 1
        self._received = b""
        self._block = stateless(FIELDS)
        self._open: dict[int, _Stream] = {}
        self._taken_bytes = 0
        windows = b"\x00\x04" + _LARGEST_WINDOW.to_bytes(4)
        greeting = frame(SETTINGS, 0, 0, windows) + frame(SETTINGS, 1, 0) + window_update(0, 1 << 30)
        self._socket.sendall(PREFACE + greeting)
        # Of different lengths at first, so that they do not all end together.
        self._socket.sendall(b"".join(self._begin(1 + PARTS * each // streams) for each in range(streams)))
        self._turn = deque[int]()
        while len(self._turn) < streams:
            self._read(Latencies())

    def run(self, parts_per_s: float, arrivals: Arrivals, duration_s: float) -> Latencies:
        """Send parts for this time, as they arrive."""
        found = Latencies()
        gc.freeze()  # the sender's own delays would count
        begins_s = time.time()
        ends_s = begins_s + duration_s
        times_s = _due_times(parts_per_s, arrivals, begins_s, random.Random(0))
        due_s = next(times_s)
        while due_s < ends_s:
            now_s = time.time()
            number = 0
            while due_s <= now_s:
                found.late_s = max(found.late_s, now_s - due_s)
                number, due_s = number + 1, next(times_s)
            self._send_parts(min(number, len(self._turn)))
            wait_s = max(0.0, due_s - time.time())
            if select.select([self._socket], [], [], wait_s)[0]:
                self._read(found)
        found.parts_s.sort()
        return found

    def close(self) -> None:
        """Break off all that is open."""
        self._socket.close()

    def _begin(self, parts: int = PARTS) -> bytes:
        stream_id, self._next_id = self._next_id, self._next_id + 2
        self._open[stream_id] = _Stream(parts)
        frames = [frame(DATA, 0, stream_id, message) for message in (_REQUEST_HEADERS, _REQUEST_BODY)]
        return b"".join((frame(HEADERS, END_HEADERS, stream_id, self._block), *frames))

    def _send_parts(self, number: int) -> None:
        """Send the next part of each stream whose turn it is; a new stream follows its last one."""
        written, streams = [], []
        for _ in range(number):
            stream_id = self._turn.popleft()
            stream = self._open[stream_id]
            stream.left -= 1
            streams.append(stream)
            if stream.left:
                self._turn.append(stream_id)
                written.append(frame(DATA, 0, stream_id, _PART))
            else:
                written += (frame(DATA, END_STREAM, stream_id, _LAST_PART), self._begin())
        data, now_s = b"".join(written), time.time()
        for stream in streams:
            stream.unanswered.append(now_s)
        self._socket.sendall(data)

    def _read(self, found: Latencies) -> None:
        """Take the time of what has come: each message is a frame of its own, since no window is used up."""
        data, times, _, _ = self._socket.recvmsg(1 << 20, socket.CMSG_SPACE(_TIMESPEC.size))
        # The first bytes may come before the kernel has begun to take times.
        whole_s, nanoseconds = _TIMESPEC.unpack(times[0][2]) if times else (time.time(), 0)
        received, now_s, at = self._received + data, whole_s + nanoseconds / 1e9, 0
        size = len(received)
        while at + _FRAME_BYTES <= size:
            end = at + _FRAME_BYTES + int.from_bytes(received[at : at + 3])
            if end > size:
                break
            stream_id = int.from_bytes(received[at + 5 : at + 9])
            if received[at + 3] == DATA:
                self._answered(stream_id, now_s, found)
            elif received[at + 3] == HEADERS and received[at + 4] & END_STREAM:
                del self._open[stream_id]
            at = end
        self._received = received[at:]
        self._taken_bytes += at
        if self._taken_bytes > _WINDOW_BYTES:
            self._socket.sendall(window_update(0, self._taken_bytes))
            self._taken_bytes = 0

    def _answered(self, stream_id: int, now_s: float, found: Latencies) -> None:
        """Take the time of a part, or have the response begin once its request has been answered."""
        stream = self._open[stream_id]
        if not stream.before:
            found.parts_s.append(now_s - stream.unanswered.popleft())
            return
        stream.before -= 1
        if stream.before == 1:
            self._socket.sendall(frame(DATA, 0, stream_id, _RESPONSE_HEADERS))
        elif not stream.before:
            self._turn.append(stream_id)
