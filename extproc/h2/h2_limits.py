"""The cost that a peer may cause (RFC 9113 §10.5).

Two kinds of limits: sizes, of which a peer can never have more; and budgets, for frames that are legal but of
no use in large numbers. A budget is a token bucket: a burst, refilled at a rate.
"""

from dataclasses import dataclass

from extproc.h2.events import ErrorCode, FatalError


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one connection, far above the use of Envoy and gRPC; guessed unless it says otherwise."""

    max_concurrent_streams: int = 16_384
    """One stream per request in flight; REFUSED_STREAM beyond."""

    max_frame_bytes: int = 16_384
    """§4.2: the least that may be announced, and what Envoy sends."""

    max_header_list_bytes: int = 16_384
    """Decoded, with 32 per field as in §6.5.2; also bounds the encoded block. grpcio's default."""

    max_continuations: int = 16
    """In one header block."""

    stream_window_bytes: int = 33 * 2**20
    """A body of 32 MiB and its gRPC framing without waiting for a WINDOW_UPDATE."""

    connection_window_bytes: int = 128 * 2**20
    """Over 65,535, which no one can take back (§6.9.2). This layer buffers nothing of it."""

    max_stream_queue_bytes: int = 2**20
    """Waiting for the peer's flow control on one stream: the stream is reset beyond."""

    max_unsent_bytes: int = 16 * 2**20
    """Waiting on the whole connection, for flow control or in `data_to_send`: the connection ends beyond."""

    control_frames_burst: int = 10_000
    control_frames_per_s: float = 5_000.0
    """PING, SETTINGS, PRIORITY, GOAWAY, unknown and empty frames. Some clients send a PING per round trip
    while data flows; this many take some percent of a core."""

    resets_burst: int = 32_768
    resets_per_s: float = 1_000.0
    """Streams that the peer resets without having sent anything on them or got an answer, or we for its
    faults. The burst is twice what can be in flight: a client that gives up resets all that wait at once. A
    proxy that resets what its own clients have reset has sent their first message before (measured on Envoy),
    so that none of them can spend this for the others."""


USUAL_LIMITS = Limits()


class Budget:
    """A token bucket; time is an argument."""

    def __init__(self, what: str, burst: float, per_s: float) -> None:
        self._what = what
        self._burst = self._left = burst
        self._per_s = per_s
        self._refilled_at_s: float | None = None

    def spend(self, now_s: float, cost: float = 1.0) -> None:
        """Spend from the budget; raises FatalError beyond the burst and the rate."""
        if self._refilled_at_s is not None:
            self._left = min(self._burst, self._left + (now_s - self._refilled_at_s) * self._per_s)
        self._refilled_at_s = now_s
        self._left -= cost
        if self._left < 0:
            raise FatalError(ErrorCode.ENHANCE_YOUR_CALM, f"too many {self._what}")
