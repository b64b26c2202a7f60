"""Exchanges whose messages come in any order, twice, not at all, or after the end: the books stay right."""

import pytest
from fuzz.from_envoy import STEP, Peer, exchange
from fuzz.sidecar_parts import parts
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

streams = st.integers(0, 7).map(lambda number: bytes([number]))
bodies = st.sampled_from(
    [b"", b"{}", b"not JSON", b'{"model": "m"}', b'{"model": "adapter"}', b'{"model": "nobody serves this"}']
)
GOOD = [b"o", b"h\0", b'b\0{"model": "m"}']


class Exchanges(RuleBasedStateMachine):
    """A peer that has up to eight exchanges at once on a sidecar with three places and a queue of three."""

    @initialize()
    def connect(self) -> None:
        self.peer = Peer()

    @rule()
    def open(self) -> None:
        self.peer.step(b"o")

    @rule(stream=streams, kind=st.sampled_from([b"h", b"H"]))
    def headers(self, stream: bytes, kind: bytes) -> None:
        self.peer.step(kind + stream)

    @rule(stream=streams, body=bodies)
    def body(self, stream: bytes, body: bytes) -> None:
        self.peer.step(b"b" + stream + body)

    @rule(stream=streams, kind=st.sampled_from([b"t", b"e", b"r"]))
    def trailers_end_or_reset(self, stream: bytes, kind: bytes) -> None:
        self.peer.step(kind + stream)

    @rule(stream=streams, noise=st.binary(max_size=30))
    def no_message(self, stream: bytes, noise: bytes) -> None:
        self.peer.step(b"m" + stream + noise)

    @rule(stream=streams)
    def a_whole_request(self, stream: bytes) -> None:
        for step in (b"o", b"h" + stream, b"b" + stream + b'{"model": "m"}'):
            self.peer.step(step)

    @rule()
    def time_passes(self) -> None:
        self.peer.step(b"w")

    @invariant()
    def every_place_belongs_to_an_open_exchange(self) -> None:
        sidecar = parts()
        taken = [backend.own for backend in sidecar.backends]
        assert all(0 <= own <= 2 for own in taken)
        open_calls = self.peer.server.open_calls if hasattr(self, "peer") else 0
        assert sum(taken) + sidecar.queue.waiting <= open_calls == sidecar.server.open_streams

    def teardown(self) -> None:
        if hasattr(self, "peer"):
            self.peer.server.connection_lost()
            self.peer.server.connection_lost()
        sidecar = parts()
        assert (sidecar.own, sidecar.queue.waiting, sidecar.server.open_streams) == (0, 0, 0)


TestExchanges = Exchanges.TestCase
TestExchanges.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def own_after(*steps: bytes) -> tuple[int, int]:
    """Places taken, and requests that wait, before the connection is lost."""
    peer = Peer()
    for step in steps:
        peer.step(step)
    found = (parts().own, parts().queue.waiting)
    peer.server.connection_lost()
    return found


@pytest.mark.parametrize(
    ("last", "expected"),
    [(b"t\0", (1, 0)), (b"e\0", (0, 0)), (b"r\0", (0, 0)), (b"h\0", (0, 0)), (b"b\0{}", (0, 0))],
)
def test_a_placed_request_keeps_its_place_until_its_end_or_a_breach(
    last: bytes, expected: tuple[int, int]
) -> None:
    assert own_after(*GOOD) == (1, 0)
    assert own_after(*GOOD, last) == expected
    assert own_after(*GOOD, last, last, last) == expected


def test_lost_connections_leave_nothing_behind() -> None:
    for count in range(len(GOOD) + 1):
        exchange(STEP.join(GOOD[:count]))
    assert own_after(*GOOD) == (1, 0)
