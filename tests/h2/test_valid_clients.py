"""Clients that keep the rules, in any order of steps; the `h2` library raises where the server does not."""

from collections import defaultdict

import h2.events
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.h2_frame_client import ANSWER, FIELDS, TRAILERS, H2Client

from extproc.h2.events import DataReceived, ErrorCode, Event, StreamClosed, StreamEnded, StreamOpened
from extproc.h2.h2_limits import Limits

LIMITS = Limits(stream_window_bytes=70_000, connection_window_bytes=100_000)
SIZES = st.sampled_from([0, 1, 200, 5_000, 40_000])


class Clients(RuleBasedStateMachine):
    """What is sent arrives, in order and once; streams end once; no window is overrun."""

    def __init__(self) -> None:
        super().__init__()
        self.peer = H2Client(LIMITS, INITIAL_WINDOW_SIZE=1000)
        self.next_id = 1
        self.up: dict[int, bytes] = {}
        self.down: dict[int, bytes] = {}
        self.is_up_ended: dict[int, bool] = {}
        self.is_down_ended: dict[int, bool] = {}
        self.reset: set[int] = set()
        self.sent = 0

    def pick(self, data: st.DataObject, ended: dict[int, bool]) -> int | None:
        ids = [
            stream_id for stream_id, is_ended in ended.items() if not is_ended and stream_id not in self.reset
        ]
        return data.draw(st.sampled_from(ids)) if ids else None

    def content(self, size: int) -> bytes:
        self.sent += 1
        return bytes([self.sent % 256]) * size

    @rule(ends=st.booleans())
    def open(self, ends: bool) -> None:
        self.peer.client.send_headers(self.next_id, FIELDS, end_stream=ends)
        self.up[self.next_id] = self.down[self.next_id] = b""
        self.is_up_ended[self.next_id], self.is_down_ended[self.next_id] = ends, False
        self.peer.exchange()
        self.peer.server.send_headers(self.next_id, ANSWER)
        self.next_id += 2

    @rule(data=st.data(), size=SIZES, ends=st.booleans(), padding=st.sampled_from([None, 0, 200]))
    def upload(self, data: st.DataObject, size: int, ends: bool, padding: int | None) -> None:
        if (stream_id := self.pick(data, self.is_up_ended)) is None:
            return
        window = self.peer.client.local_flow_control_window(stream_id) - 256
        content = self.content(min(size, 16_000, max(window, 0)))
        self.peer.client.send_data(stream_id, content, end_stream=ends, pad_length=padding)
        self.up[stream_id] += content
        self.is_up_ended[stream_id] = ends

    @rule(data=st.data())
    def end_with_trailers(self, data: st.DataObject) -> None:
        if (stream_id := self.pick(data, self.is_up_ended)) is not None:
            self.peer.client.send_headers(stream_id, [(b"x-end", b"1")], end_stream=True)
            self.is_up_ended[stream_id] = True

    @rule(data=st.data(), size=SIZES)
    def answer(self, data: st.DataObject, size: int) -> None:
        if (stream_id := self.pick(data, self.is_down_ended)) is not None:
            content = self.content(size)
            self.peer.server.send_data(stream_id, content)
            self.down[stream_id] += content

    @rule(data=st.data(), with_trailers=st.booleans())
    def end_answer(self, data: st.DataObject, with_trailers: bool) -> None:
        if (stream_id := self.pick(data, self.is_down_ended)) is not None:
            if with_trailers:
                self.peer.server.send_headers(stream_id, TRAILERS, end_stream=True)
            else:
                self.peer.server.send_data(stream_id, b"", end_stream=True)
            self.is_down_ended[stream_id] = True

    @rule(data=st.data(), by_client=st.booleans())
    def cancel(self, data: st.DataObject, by_client: bool) -> None:
        self.peer.exchange()
        stream_id = self.pick(data, self.is_down_ended)
        if stream_id is None:
            return
        if by_client:
            self.peer.client.reset_stream(stream_id, 8)
        else:
            self.peer.server.reset(stream_id, ErrorCode.CANCEL)
        self.reset.add(stream_id)
        self.peer.exchange()

    @rule(window=st.sampled_from([0, 10, 1000, 65_535]))
    def change_initial_window(self, window: int) -> None:
        self.peer.exchange()
        self.peer.client.update_settings({4: window})

    @rule(data=st.data(), size=st.integers(1, 60_000))
    def widen(self, data: st.DataObject, size: int) -> None:
        self.peer.exchange()
        self.peer.client.increment_flow_control_window(size)
        if (stream_id := self.pick(data, self.is_down_ended)) is not None:
            self.peer.client.increment_flow_control_window(size, stream_id)

    @rule()
    def ping(self) -> None:
        self.peer.client.ping(b"12345678")

    @precondition(lambda self: self.next_id > 1)
    @rule()
    def carry(self) -> None:
        self.peer.exchange()

    @invariant()
    def nothing_is_over(self) -> None:
        assert not self.peer.server.is_closed

    def teardown(self) -> None:
        self.peer.exchange()
        for stream_id, is_ended in self.is_down_ended.items():
            if not is_ended:
                self.peer.server.send_headers(stream_id, TRAILERS, end_stream=True)
        for _ in range(100):
            for stream_id in self.waiting():
                self.peer.client.increment_flow_control_window(20_000, stream_id)
            self.peer.client.increment_flow_control_window(20_000)
            self.peer.exchange()
        self.check_arrivals()

    def waiting(self) -> list[int]:
        return [stream_id for stream_id, stream in self.peer.server._streams.live.items() if stream.queue]

    def check_arrivals(self) -> None:
        up, ends = arrived(self.peer.events)
        down: dict[int, bytes] = defaultdict(bytes)
        down_ends = [
            event.stream_id for event in self.peer.received if isinstance(event, h2.events.StreamEnded)
        ]
        for event in self.peer.received:
            if isinstance(event, h2.events.DataReceived):
                down[event.stream_id] += event.data
        for stream_id in self.up.keys() - self.reset:
            assert up[stream_id] == self.up[stream_id]
            assert down[stream_id] == self.down[stream_id]
            assert ends.count(stream_id) == self.is_up_ended[stream_id]
            assert down_ends.count(stream_id) == 1
        live = {stream_id for stream_id, ended in self.is_up_ended.items() if not ended} - self.reset
        assert self.peer.server.open_streams == len(live)


def arrived(events: list[Event]) -> tuple[dict[int, bytes], list[int]]:
    up: dict[int, bytes] = defaultdict(bytes)
    ends = []
    for event in events:
        if isinstance(event, DataReceived):
            up[event.stream_id] += event.data
        is_end = isinstance(event, StreamEnded | StreamClosed) or getattr(event, "is_ended", False)
        if is_end and isinstance(event, StreamOpened | DataReceived | StreamEnded | StreamClosed):
            ends.append(event.stream_id)
    return up, ends


Clients.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestValidClients = Clients.TestCase
