"""Sequences of frames for the HTTP/2 state machine: valid, wrong and mutated; each answer judged by RFC 9113.

    PYTHONPATH=tests python -m fuzz.h2_frames --sequences 1000000

`run_sequence` is one connection: a client that mostly keeps the rules, breaks them now and then, and whose
bytes are sometimes changed on the way; a server application that answers at random; and `h2_judge`, which
says after every frame what may be answered, which events must come, and how many streams are open. pytest
runs the same body (Hypothesis draws the choices), and so does `h2_coverage` (a coverage-guided fuzzer does).
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Protocol, TypeVar

import hpack
from fuzz.h2_judge import FINE, MAX_WINDOW, Answer, Frame, Judge, split

from extproc.h2.connection import ServerConnection
from extproc.h2.events import ErrorCode, Event
from extproc.h2.frames import PREFACE
from extproc.h2.h2_limits import Limits

T = TypeVar("T")

LIMITS = Limits(
    max_concurrent_streams=5,
    max_header_list_bytes=700,
    stream_window_bytes=2_000,
    connection_window_bytes=70_000,
)
MAX_STEPS = 60
BOUNDARY_UINT32 = (
    0,
    1,
    100,
    16_383,
    16_384,
    65_535,
    2**24 - 1,
    2**24,
    2**31 - 65_536,
    MAX_WINDOW,
    2**31,
    2**32 - 1,
)

METHOD, SCHEME, PATH = (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C")
REQUEST = (
    METHOD,
    SCHEME,
    PATH,
    (b":authority", b"x"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
)
TRAILERS = ((b"x-checksum", b"1"),)
ODD_LISTS = (
    (),
    REQUEST[1:],
    (*REQUEST, METHOD),
    (METHOD, *REQUEST),
    (METHOD, SCHEME, (b":path", b"")),
    (METHOD, SCHEME, PATH, (b":protocol", b"websocket")),
    (METHOD, SCHEME, PATH, (b":status", b"200")),
    (*REQUEST, (b"Upper", b"1")),
    (*REQUEST, (b"", b"1")),
    (*REQUEST, (b"a b", b"1")),
    (*REQUEST, (b"x", b"a\r\nb")),
    (*REQUEST, (b"x", b" a")),
    (METHOD, SCHEME, (b":path", b"/a\n")),
    (*REQUEST, (b"connection", b"close")),
    (*REQUEST, (b"transfer-encoding", b"chunked")),
    (*REQUEST, (b"te", b"gzip")),
    (*REQUEST, (b"content-length", b"x")),
    (*REQUEST, (b"content-length", b"1"), (b"content-length", b"2")),
    (*REQUEST, (b"content-length", b"0")),
    (*REQUEST, (b"content-length", b"10")),
    (*REQUEST, (b"long", b"x" * 800)),
    ((b"te", b"trailers"), *REQUEST),
)
ANSWER = bytes.fromhex("88")
END = bytes.fromhex("00") + b"\x0bgrpc-status\x010"


class Source(Protocol):
    """Where the choices come from."""

    def randrange(self, stop: int) -> int: ...

    def randbytes(self, n: int) -> bytes: ...


class Seeded(random.Random):
    """Twice as fast as the original, whose choices are exactly even."""

    def randrange(self, stop: int) -> int:  # type: ignore[override]  # all that is used
        return int(self.random() * stop)


class Client:
    """Writes frames; knows the state of the connection from the judge."""

    def __init__(self, source: Source, judge: Judge) -> None:
        self.source, self.judge = source, judge
        self.encoder = hpack.Encoder()
        self.tameness = self.some((1, 4, 40))

    def chance(self, one_in: int) -> bool:
        return self.source.randrange(one_in) == 0

    def odd(self, one_in: int) -> bool:
        """Whether to break a rule: a tame client lives long enough to get far."""
        return self.chance(one_in * self.tameness)

    def some(self, choices: Sequence[T]) -> T:
        return choices[self.source.randrange(len(choices))]

    def frame(self) -> bytes:
        """One frame, sometimes several: a header block can be cut."""
        kinds = (0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 8, 9, 11)
        kind = self.some(kinds)
        if (kind in (5, 9) or (kind in (0, 3) and not self.judge.live)) and not self.odd(4):
            kind = 1
        makers = {0: self.data, 1: self.headers, 3: self.rst, 4: self.settings, 8: self.window_update}
        sizes = {2: 5, 6: 8, 7: 8}
        if kind in makers:
            data = makers[kind]()
        else:
            size = sizes.get(kind, 3) if not self.odd(6) else self.source.randrange(12)
            payload = self.source.randbytes(size)
            if kind == 6 and self.chance(2):
                payload = b"draining"
            stream_id = self.stream_id() if kind == 2 or self.odd(8) else 0
            data = raw(kind, self.flags(self.some((0, 1))), stream_id, payload)
        return self.mutated(data) if self.odd(25) else data

    def mutated(self, data: bytes) -> bytes:
        at = self.source.randrange(len(data))
        how = self.source.randrange(3)
        if how == 0:
            return data[:at] + self.source.randbytes(1) + data[at + 1 :]
        return data[:at] + data[at + 1 :] if how == 1 else data[:at] + self.source.randbytes(2) + data[at:]

    def flags(self, flags: int) -> int:
        return self.source.randrange(256) if self.odd(30) else flags

    def stream_id(self) -> int:
        live = self.judge.live
        if live and not self.odd(6):
            unended = [stream_id for stream_id in live if not self.judge.sides[stream_id].peer_ended]
            return int(self.some(unended if unended and not self.odd(3) else live))
        return int(
            self.some((0, 1, 2, self.judge.highest, self.judge.highest + 2, self.source.randrange(50)))
        )

    def data(self) -> bytes:
        size = self.some((0, 1, 10, 10, 200, 900)) if not self.odd(6) else self.some((1500, 2500, 16_384))
        flags, content = self.flags(int(self.chance(4))), bytes(size)
        if self.chance(8):
            padding = self.some((0, 1, 5)) if not self.odd(5) else 255
            flags, content = flags | 8, bytes([padding]) + content + bytes(min(padding, 5))
        return raw(0, flags, self.stream_id(), content if self.odd(40) else content[:16_384])

    def headers(self) -> bytes:
        is_new = not self.judge.live or self.chance(2)
        stream_id = (
            (self.judge.highest + 1 | 1) + 2 * self.chance(5) - self.odd(40) if is_new else self.stream_id()
        )
        flags, block = self.flags(int(self.chance(3) if is_new else not self.odd(4))), self.block(is_new)
        if self.chance(8):
            flags, block = flags | 32, self.source.randbytes(5) + block
        if self.chance(8):
            padding = self.some((0, 1, 3)) if not self.odd(5) else 200
            flags, block = flags | 8, bytes([padding]) + block + bytes(min(padding, 3))
        if not self.chance(5):
            return raw(1, flags | 4, stream_id, block)
        cuts = self.some((1, 1, 2, 3)) if not self.odd(10) else 18 if len(block) > 20 else 1
        step = max(1, len(block) // (cuts + 1))
        parts = [block[at : at + step] for at in range(0, len(block), step)] or [b""]
        found = raw(1, flags & ~4, stream_id, parts[0])
        for number, part in enumerate(parts[1:], 2):
            found += raw(9, 4 if number == len(parts) else 0, stream_id, part)
        return found

    def block(self, is_request: bool) -> bytes:
        if self.odd(25):
            return self.source.randbytes(self.source.randrange(20))
        fields = self.some(ODD_LISTS) if self.odd(8) else REQUEST if is_request else TRAILERS
        return bytes(self.encoder.encode(fields, huffman=self.chance(2)))

    def rst(self) -> bytes:
        size = 4 if not self.odd(10) else self.source.randrange(8)
        return raw(3, 0, self.stream_id(), self.source.randrange(16).to_bytes(4).ljust(size, b"\0")[:size])

    def settings(self) -> bytes:
        if self.chance(3):
            if not self.odd(10):
                self.encoder.header_table_size = 0
            return raw(4, 1, 0, b"")
        payload = b""
        for _ in range(self.source.randrange(3)):
            key = self.some((1, 2, 3, 4, 4, 4, 5, 6, 99))
            sound = {2: (0, 1), 4: (0, 10, 300, 65_535), 5: (16_384, 20_000)}.get(key, (0, 100, 4096))
            value = self.some(BOUNDARY_UINT32) if self.odd(6) else self.some(sound)
            payload += key.to_bytes(2) + value.to_bytes(4)
        return raw(4, self.flags(0), self.stream_id() if self.odd(20) else 0, payload + bytes(self.odd(20)))

    def window_update(self) -> bytes:
        value = self.some(BOUNDARY_UINT32) if self.odd(6) else self.some((1, 50, 300, 5000))
        size = 4 if not self.odd(20) else self.source.randrange(8)
        stream_id = 0 if self.chance(3) or not self.judge.live else self.stream_id()
        return raw(8, self.flags(0), stream_id, value.to_bytes(4).ljust(size, b"\0")[:size])


class Run:
    """One connection from its beginning to its end."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.connection = ServerConnection(LIMITS)
        self.judge = Judge(
            streams=LIMITS.max_concurrent_streams,
            stream_window=LIMITS.stream_window_bytes,
            connection_window=LIMITS.connection_window_bytes,
            list_bytes=LIMITS.max_header_list_bytes,
        )
        self.client = Client(source, self.judge)
        self.answers: Counter[Answer] = Counter()
        self.fed: list[bytes] = []
        self.seen: list[Event] = []
        self.written = b""
        self.now_s = 0.0
        self.see()

    def see(self) -> list[Answer]:
        data = self.connection.data_to_send()
        self.written += data
        return self.judge.see(data)

    def feed(self, data: bytes) -> list[Event]:
        self.now_s += 0.001
        self.fed.append(data)
        events = self.connection.receive(data, self.now_s)
        self.seen += events
        return events

    def greet(self) -> None:
        preface = PREFACE
        if self.client.odd(30):
            preface = self.client.mutated(preface)
        events = self.feed(preface[:24])
        if preface[:24] != PREFACE[: len(preface[:24])]:
            assert self.see() == [("connection", 0, 1)], "a wrong preface"
            assert [type(event).__name__ for event in events] == ["ConnectionEnded"]
        if len(preface) < len(PREFACE) and not self.connection.is_closed:
            self.feed(PREFACE[len(preface) :])
        if not self.connection.is_closed and not self.client.odd(20):
            self.judged(self.client.settings() if self.client.chance(2) else raw(4, 0, 0, b""))

    def judged(self, data: bytes) -> bytes:
        """Feed every whole frame and hold the answer against the judge's; returns what is left over."""
        found, rest = split(data, LIMITS.max_frame_bytes)
        for frame in found:
            if not self.connection.is_closed:
                self.judge_frame(frame)
        if (
            len(rest) >= 9
            and int.from_bytes(rest[:3]) > LIMITS.max_frame_bytes
            and not self.connection.is_closed
        ):
            self.feed(rest)
            assert self.see() == [("connection", 0, 6)], "a frame longer than announced"
            rest = b""
        return rest

    def judge_frame(self, frame: Frame) -> None:
        verdict = self.judge.hear(frame)
        events = self.feed(raw(*frame))
        answers = self.errors(self.see())
        assert len(answers) <= 1, f"{frame}: {answers}"
        answer = answers[0] if answers else FINE
        assert verdict.permits(answer), f"{frame}: {answer}, not {verdict.answers}"
        live = self.judge.live
        self.judge.settle(verdict, answer)
        self.answers[(answer[0], 0, answer[2])] += 1
        self.check_events(events, self.expected(verdict.events, answer, live))
        self.check_size()

    def errors(self, answers: list[Answer]) -> list[Answer]:
        """Resets with NO_ERROR, and none else, are the application's (§8.1)."""
        for _, stream_id, code in answers:
            if stream_id and code == 0:
                self.judge.sides[stream_id].reset_by_us = True
        return [answer for answer in answers if answer[2]]

    def expected(
        self, events: list[tuple[object, ...]], answer: Answer, live: list[int]
    ) -> list[tuple[object, ...]]:
        scope, stream_id, code = answer
        if scope == "connection":
            return [*(("StreamClosed", live_id, None) for live_id in live), ("ConnectionEnded", code)]
        if scope == "stream":
            events = [("StreamClosed", stream_id, code)] if stream_id in live else []
        if self.judge.is_refusing and not self.judge.live:
            events = [*events, ("ConnectionEnded", 0)]
        return events

    def check_events(self, events: list[Event], expected: list[tuple[object, ...]]) -> None:
        found = [
            (
                type(event).__name__,
                *(getattr(event, name) for name in event.__struct_fields__ if name != "reason"),
            )
            for event in events
        ]
        assert found == expected, f"{found}, not {expected}"
        is_over = bool(expected) and expected[-1][0] == "ConnectionEnded"
        assert self.connection.is_closed == is_over

    def check_size(self) -> None:
        """What is held is what the open streams need."""
        is_closed = self.connection.is_closed
        assert self.connection.open_streams == (0 if is_closed else len(self.judge.live))
        sender, receiver = self.connection._sender, self.connection._receiver
        live = self.connection._streams.live
        assert sender.queued_bytes == sum(len(stream.queue or b"") for stream in live.values())
        assert set(sender._waiting) <= set(live)
        for stream_id, stream in live.items():
            if stream.queue:
                windows = self.judge.sides[stream_id].send_window, self.judge.send_window
                assert min(windows) <= 0, "held back without need"
        assert len(receiver._reader._partial) <= LIMITS.max_frame_bytes + 9
        assert len(receiver._decoder._cache) <= 64
        assert not self.connection._events

    def act(self) -> None:
        """The application: whatever it does, the client must be able to take it."""
        stream_id = self.client.stream_id()
        before = set(self.judge.live)
        act, ends = self.source.randrange(12), self.client.chance(2)
        if act < 4:
            self.connection.send_headers(stream_id, END if ends else ANSWER, end_stream=ends)
        elif act < 9:
            self.connection.send_data(
                stream_id, bytes(self.client.some((0, 5, 400, 5000, 40_000))), end_stream=ends
            )
        elif act == 9:
            self.connection.reset(stream_id, ErrorCode.NO_ERROR)
        elif act == 10:
            self.connection.reset(stream_id, ErrorCode.CANCEL)
        elif self.client.chance(4):
            self.connection.go_away()
        for _, reset_id, code in self.see():
            assert reset_id in before, "only the application resets here"
            assert code in (0, 8)
            self.judge.sides[reset_id].reset_by_us = True
        events = self.connection.receive(b"", self.now_s)
        assert all(type(event).__name__ == "ConnectionEnded" for event in events)
        assert self.connection.is_closed == bool(events)
        self.check_size()


def raw(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream_id.to_bytes(4) + payload


def run_sequence(source: Source) -> Counter[Answer]:
    """Raises AssertionError if an answer is wrong; returns the kinds of answers that were seen."""
    run = Run(source)
    run.greet()
    acts = not run.client.chance(4)
    rest = b""
    for _ in range(source.randrange(MAX_STEPS)):
        if run.connection.is_closed:
            break
        rest = run.judged(rest + run.client.frame())
        if acts and not run.connection.is_closed and run.client.chance(2):
            run.act()
    if not acts:
        run.feed(rest)
        check_cuts(run)
    return run.answers


def check_cuts(run: Run) -> None:
    """However the bytes are cut, the same comes of them."""
    data, again, at = b"".join(run.fed), ServerConnection(LIMITS), 0
    events: list[Event] = []
    written = again.data_to_send()
    while at < len(data):
        size = 1 + run.source.randrange(run.client.some((1, 40, 3000)))
        events += again.receive(data[at : at + size], 1.0)
        written += again.data_to_send()
        at += size
    assert events == run.seen
    assert written == run.written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sequences", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number (and seed) of the first sequence")
    options = parser.parse_args()
    started_s = time.monotonic()
    answers: Counter[Answer] = Counter()
    for number in range(options.first, options.first + options.sequences):
        try:
            answers += run_sequence(Seeded(number))
        except BaseException:
            print(f"sequence {number}: --first {number} --sequences 1 runs it alone", file=sys.stderr)
            raise
    took_s = time.monotonic() - started_s
    print(f"{options.sequences:,} sequences, {answers.total():,} frames judged, {took_s:.0f} s; answers:")
    for (scope, _, code), count in sorted(answers.items()):
        print(f"  {scope:<11}{ErrorCode(code).name if scope != 'fine' else '':<20}{count:>12,}")


if __name__ == "__main__":
    main()
