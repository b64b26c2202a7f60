"""RFC 9113 once more, as a judge: what may a server answer to this frame, in this state?

Written for clarity alone, and apart from `extproc.h2`: it parses and checks by itself, remembers
every stream for ever, and knows of our own side only what it sees on the wire. Where the RFC leaves a choice,
or one frame breaks several rules, every permitted answer is listed.
"""

from dataclasses import dataclass, field

import hpack

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
ACK = END_STREAM = 1
END_HEADERS, PADDED, HAS_PRIORITY = 4, 8, 32
PROTOCOL, FLOW, CLOSED, FRAME_SIZE, REFUSED, COMPRESSION, CALM = 1, 3, 5, 6, 7, 9, 11
MAX_WINDOW = 2**31 - 1

Frame = tuple[int, int, int, bytes]
Answer = tuple[str, int, int]
"""("stream", id, code) or ("connection", 0, code) or FINE."""
FINE: Answer = ("fine", 0, 0)


def split(data: bytes, max_frame: int = 2**24) -> tuple[list[Frame], bytes]:
    """Whole frames, and the rest, which is also kept whole if it begins with a frame that is too long."""
    found = []
    while len(data) >= 9:
        size = int.from_bytes(data[:3])
        if size > max_frame or len(data) < 9 + size:
            break
        found.append((data[3], data[4], int.from_bytes(data[5:9]) % 2**31, data[9 : 9 + size]))
        data = data[9 + size :]
    return found, data


@dataclass
class Side:
    """One stream as the judge sees it."""

    receive_window: int
    send_window: int
    content_left: int | None
    peer_ended: bool = False
    we_ended: bool = False
    reset_by_us: bool = False
    reset_by_peer: bool = False

    @property
    def is_live(self) -> bool:
        return not (self.reset_by_us or self.reset_by_peer or (self.peer_ended and self.we_ended))


@dataclass
class Verdict:
    """What may be answered, and the events if nothing is wrong."""

    answers: set[Answer] = field(default_factory=set)
    events: list[tuple[object, ...]] = field(default_factory=list)
    is_optional: bool = False

    def connection(self, code: int) -> None:
        self.answers.add(("connection", 0, code))

    def stream(self, stream_id: int, code: int) -> None:
        self.answers.add(("stream", stream_id, code))

    def permits(self, answer: Answer) -> bool:
        return answer in self.answers or (answer == FINE and (self.is_optional or not self.answers))


class Judge:
    """One connection; feed it every frame of the client and everything that the server writes."""

    def __init__(self, *, streams: int, stream_window: int, connection_window: int, list_bytes: int) -> None:
        self.max_streams, self.stream_window, self.list_bytes = streams, stream_window, list_bytes
        self.connection_window = connection_window
        self.receive_window = 65_535
        self.send_window = 65_535
        self.initial_window = 65_535
        self.peer_max_frame = 16_384
        self.sides: dict[int, Side] = {}
        self.highest = 0
        self.due: int | None = SETTINGS
        self.block: tuple[int, int, bytes, int] = (0, 0, b"", 0)
        self.decoder = hpack.Decoder(max_header_list_size=list_bytes)
        self.our_decoder = hpack.Decoder()
        self.highest_opened = 0
        self.is_drain_acknowledged = False
        self.is_refusing = False
        self.is_draining = False
        self.last_promised = MAX_WINDOW
        self.pings: list[bytes] = []
        self.unacknowledged: list[list[tuple[int, int]]] = []

    @property
    def live(self) -> list[int]:
        return [stream_id for stream_id, side in self.sides.items() if side.is_live]

    # ---- the client's frames

    def hear(self, frame: Frame) -> Verdict:
        kind, flags, stream_id, payload = frame
        verdict = Verdict()
        if self.due is not None and kind != self.due:
            verdict.connection(PROTOCOL)
            return verdict
        rules = (
            self._data, self._headers, self._priority, self._rst, self._settings,
            self._push, self._ping, self._goaway, self._window_update, self._continuation,
        )  # fmt: skip
        if kind < len(rules):
            rules[kind](verdict, flags, stream_id, payload)
        return verdict

    def settle(self, verdict: Verdict, answer: Answer) -> None:
        """The server has decided so."""
        if answer[0] == "stream":
            self.sides.setdefault(answer[1], self._side(None)).reset_by_us = True

    def _side(self, content: int | None) -> Side:
        return Side(self.stream_window, self.initial_window, content)

    def _is_idle(self, stream_id: int) -> bool:
        return stream_id % 2 == 0 or stream_id > self.highest

    def _stripped(self, verdict: Verdict, flags: int, payload: bytes) -> bytes:
        start = (1 if flags & PADDED else 0) + (5 if flags & HAS_PRIORITY else 0)
        if len(payload) < start:
            verdict.connection(FRAME_SIZE)
            return b""
        padding = payload[0] if flags & PADDED else 0
        if padding > len(payload) - start:
            verdict.connection(PROTOCOL)
        return payload[start : len(payload) - padding]

    def _on_closed(self, verdict: Verdict, stream_id: int) -> None:
        """§5.1 lets us forgive; we promise not to above the highest stream that we have reset."""
        side = self.sides.get(stream_id)
        if side is None or not side.reset_by_us:
            verdict.connection(CLOSED)
            verdict.is_optional = any(
                other.reset_by_us for other_id, other in self.sides.items() if other_id >= stream_id
            )

    def _data(self, verdict: Verdict, flags: int, stream_id: int, payload: bytes) -> None:
        if self._is_idle(stream_id):
            verdict.connection(PROTOCOL)
        content = self._stripped(verdict, flags & PADDED, payload)
        if len(payload) > self.receive_window:
            verdict.connection(FLOW)
        self.receive_window -= len(payload)
        side = self.sides.get(stream_id)
        if side is None or not side.is_live:
            self._on_closed(verdict, stream_id)
            return
        if side.peer_ended:
            verdict.stream(stream_id, CLOSED)
        if len(payload) > side.receive_window:
            verdict.stream(stream_id, FLOW)
        side.receive_window -= len(payload)
        self._count(verdict, side, stream_id, len(content), bool(flags & END_STREAM))
        if not verdict.answers:
            side.peer_ended = bool(flags & END_STREAM)
            if content or side.peer_ended:
                verdict.events.append(("DataReceived", stream_id, content, side.peer_ended))

    def _count(self, verdict: Verdict, side: Side, stream_id: int, size: int, ends: bool) -> None:
        if side.content_left is not None:
            side.content_left -= size
            if side.content_left < 0 or (ends and side.content_left):
                verdict.stream(stream_id, PROTOCOL)

    def _headers(self, verdict: Verdict, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id % 2 == 0:
            verdict.connection(PROTOCOL)
        block = self._stripped(verdict, flags, payload)
        if verdict.answers:
            return
        if flags & END_HEADERS:
            self._whole_block(verdict, flags, stream_id, block)
        else:
            self.due, self.block = CONTINUATION, (stream_id, flags, block, 0)

    def _continuation(self, verdict: Verdict, flags: int, stream_id: int, payload: bytes) -> None:
        of_id, of_flags, block, count = self.block
        if self.due != CONTINUATION or stream_id != of_id:
            verdict.connection(PROTOCOL)
            return
        block, count = block + payload, count + 1
        self.block = (of_id, of_flags, block, count)
        if count > 16 or len(block) > self.list_bytes:
            verdict.connection(CALM)
        elif flags & END_HEADERS:
            self.due = None
            self._whole_block(verdict, of_flags, stream_id, block)

    def _whole_block(self, verdict: Verdict, flags: int, stream_id: int, block: bytes) -> None:
        try:
            fields = [(bytes(name), bytes(value)) for name, value in self.decoder.decode(block, raw=True)]
        except hpack.OversizedHeaderListError:
            verdict.connection(CALM)
            return
        except hpack.HPACKError:
            verdict.connection(COMPRESSION)
            return
        ends = bool(flags & END_STREAM)
        side = self.sides.get(stream_id)
        if side is not None and side.is_live:
            self._trailers(verdict, side, stream_id, fields, ends)
        elif stream_id <= self.highest:
            self._on_closed(verdict, stream_id)
        else:
            self._request(verdict, stream_id, fields, ends)

    def _request(
        self, verdict: Verdict, stream_id: int, fields: list[tuple[bytes, bytes]], ends: bool
    ) -> None:
        self.highest = stream_id
        if self.is_refusing or len(self.live) >= self.max_streams:
            verdict.stream(stream_id, REFUSED)
        lengths = {value for name, value in fields if name == b"content-length"}
        content = None
        if len(lengths) == 1 and (text := lengths.pop()).isdigit() and len(text) <= 18:
            content = int(text)
        elif lengths or any(name == b"content-length" for name, _ in fields):
            verdict.stream(stream_id, PROTOCOL)
        if not is_request(fields) or (ends and content):
            verdict.stream(stream_id, PROTOCOL)
        if not verdict.answers:
            self.highest_opened = stream_id
            self.sides[stream_id] = self._side(content)
            self.sides[stream_id].peer_ended = ends
            verdict.events.append(("StreamOpened", stream_id, tuple(fields), ends))

    def _trailers(
        self, verdict: Verdict, side: Side, stream_id: int, fields: list[tuple[bytes, bytes]], ends: bool
    ) -> None:
        if side.peer_ended:
            verdict.stream(stream_id, CLOSED)
        if not ends or not all(is_regular(name, value) for name, value in fields):
            verdict.stream(stream_id, PROTOCOL)
        self._count(verdict, side, stream_id, 0, True)
        if not verdict.answers:
            side.peer_ended = True
            verdict.events.append(("StreamEnded", stream_id))

    def _priority(self, verdict: Verdict, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            verdict.connection(PROTOCOL)
        if len(payload) != 5:
            verdict.stream(stream_id, FRAME_SIZE)
            if stream_id not in self.live:  # no RST_STREAM for an idle stream (§6.4)
                verdict.connection(FRAME_SIZE)

    def _rst(self, verdict: Verdict, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            verdict.connection(FRAME_SIZE)
        if self._is_idle(stream_id):
            verdict.connection(PROTOCOL)
        side = self.sides.get(stream_id)
        if not verdict.answers and side is not None and side.is_live:
            code = int.from_bytes(payload)
            verdict.events.append(("StreamClosed", stream_id, code if code <= 13 else 2))
            side.reset_by_peer = True

    def _settings(self, verdict: Verdict, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            verdict.connection(PROTOCOL)
        if flags & ACK:
            if payload:
                verdict.connection(FRAME_SIZE)
            if self.due == SETTINGS:
                verdict.connection(PROTOCOL)
            self.decoder.max_allowed_table_size = 0
            return
        if len(payload) % 6:
            verdict.connection(FRAME_SIZE)
        pairs = [(payload[at : at + 6][:2], payload[at : at + 6][2:]) for at in range(0, len(payload) - 5, 6)]
        settings = [(int.from_bytes(key), int.from_bytes(value)) for key, value in pairs]
        for key, value in settings:
            self._setting(verdict, key, value)
            if key == 4:
                largest = max((self.sides[live_id].send_window for live_id in self.live), default=0)
                if largest + value - self.initial_window > MAX_WINDOW:
                    verdict.connection(FLOW)
        self.due = None
        self.unacknowledged.append(settings)

    def _setting(self, verdict: Verdict, key: int, value: int) -> None:
        if (key == 2 and value > 1) or (key == 5 and not 16_384 <= value <= 16_777_215):
            verdict.connection(PROTOCOL)
        elif key == 4 and value > MAX_WINDOW:
            verdict.connection(FLOW)

    def _acknowledged(self) -> None:
        """What was asked for holds from here on, and not before."""
        for key, value in self.unacknowledged.pop(0):
            if key == 1:
                self.our_decoder.max_allowed_table_size = value
            elif key == 5:
                self.peer_max_frame = value
            elif key == 4:
                for stream_id in self.live:
                    self.sides[stream_id].send_window += value - self.initial_window
                self.initial_window = value

    def _push(self, verdict: Verdict, *_: object) -> None:
        verdict.connection(PROTOCOL)

    def _ping(self, verdict: Verdict, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            verdict.connection(PROTOCOL)
        if len(payload) != 8:
            verdict.connection(FRAME_SIZE)
        if not verdict.answers and flags & ACK:
            self.is_drain_acknowledged |= self.is_draining and payload == b"draining"
        elif not verdict.answers:
            self.pings.append(payload)

    def _goaway(self, verdict: Verdict, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            verdict.connection(PROTOCOL)
        if len(payload) < 8:
            verdict.connection(FRAME_SIZE)

    def _window_update(self, verdict: Verdict, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            verdict.connection(FRAME_SIZE)
            return
        increment = int.from_bytes(payload) % 2**31
        if stream_id == 0:
            self.send_window += increment
            if increment == 0:
                verdict.connection(PROTOCOL)
            if self.send_window > MAX_WINDOW:
                verdict.connection(FLOW)
        elif self._is_idle(stream_id):
            verdict.connection(PROTOCOL)
        elif (side := self.sides.get(stream_id)) is not None and side.is_live:
            side.send_window += increment
            if increment == 0:
                verdict.stream(stream_id, PROTOCOL)
            if side.send_window > MAX_WINDOW:
                verdict.stream(stream_id, FLOW)

    # ---- what the server writes

    def see(self, written: bytes) -> list[Answer]:
        """Check it against the rules for the one who writes it; returns the errors that it announces."""
        found, rest = split(written)
        assert rest == b"", "half a frame written"
        answers: list[Answer] = []
        for kind, flags, stream_id, payload in found:
            assert len(payload) <= self.peer_max_frame
            if kind == HEADERS:
                self.our_decoder.decode(payload)
            if kind in (DATA, HEADERS):
                self._sent(kind, flags, stream_id, len(payload))
            elif kind == RST_STREAM:
                assert not self._is_idle(stream_id)
                answers.append(("stream", stream_id, int.from_bytes(payload)))
            elif kind == WINDOW_UPDATE:
                self._widened(stream_id, int.from_bytes(payload))
            elif kind == GOAWAY:
                answers += self._went_away(payload)
            elif kind == PING:
                self._pinged(flags, payload)
            elif kind == SETTINGS:
                if flags & ACK:
                    self._acknowledged()
            else:
                assert kind == CONTINUATION
        return answers

    def _sent(self, kind: int, flags: int, stream_id: int, size: int) -> None:
        side = self.sides[stream_id]
        assert side.is_live, "content on a closed stream"
        assert not side.we_ended, "content on a stream that we have ended"
        if kind == DATA:
            assert size == 0 or size <= min(side.send_window, self.send_window), "a window is overrun"
            side.send_window -= size
            self.send_window -= size
        side.we_ended = bool(flags & END_STREAM)

    def _widened(self, stream_id: int, increment: int) -> None:
        assert increment > 0
        if stream_id == 0:
            self.receive_window += increment
            assert self.receive_window <= self.connection_window
        else:
            self.sides[stream_id].receive_window += increment
            assert self.sides[stream_id].receive_window <= self.stream_window

    def _went_away(self, payload: bytes) -> list[Answer]:
        last, code = int.from_bytes(payload[:4]), int.from_bytes(payload[4:8])
        assert last <= self.last_promised, "§6.8: the last stream may not go up"
        self.last_promised = last
        assert last in (self.highest_opened, MAX_WINDOW)
        assert code or last == MAX_WINDOW or self.is_drain_acknowledged, "refuses too early"
        self.is_refusing = last < MAX_WINDOW
        self.is_draining = True
        return [("connection", 0, code)] if code else []

    def _pinged(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            assert payload == self.pings.pop(0)


def is_regular(name: bytes, value: bytes) -> bool:
    if not name or any(char <= 0x20 or 0x41 <= char <= 0x5A or char >= 0x7F or char == 0x3A for char in name):
        return False
    if any(char in value for char in b"\0\r\n") or value != value.strip(b" \t"):
        return False
    if name in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"):
        return False
    return name != b"te" or value == b"trailers"


def is_request(fields: list[tuple[bytes, bytes]]) -> bool:
    seen: dict[bytes, bytes] = {}
    is_pseudo_over = False
    for name, value in fields:
        if name[:1] != b":":
            is_pseudo_over = True
            if not is_regular(name, value):
                return False
        elif is_pseudo_over or name in seen or not is_regular(b"x", value):
            return False
        else:
            seen[name] = value
    known = {b":method", b":scheme", b":path", b":authority"}
    return {b":method", b":scheme", b":path"} <= set(seen) <= known and bool(seen[b":path"])
