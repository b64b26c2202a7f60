"""A response as it passes: when it began, how it ended, and the last bytes of it.

Every generated token passes here behind a gateway, so that a part costs as little as counting it and keeping
the end of what came. The end is looked at once, when the exchange is over.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from extproc.outcomes.outcome import OVERLOADED, STREAM_ERROR_KEY, LogEntry
from extproc.outcomes.response_end import (
    TAIL_BYTES,
    TokenUsage,
    is_comment,
    read_stream_error,
    read_usage,
)
from extproc.outcomes.retry_after import read_retry_after_s
from extproc.outcomes.server_times import DECODE_TAG, HEADERS_TAG, TTFT_TAG

_MOST_KEPT = TAIL_BYTES + 1024
"""Guessed: so the end of what came is cut once for some parts, not for each."""


@dataclass(slots=True, eq=False)
class ResponseWatch:
    """Follows one response: `status` is 0 before its headers, `is_complete` once it has ended well."""

    status: int = 0
    is_complete: bool = False
    has_body: bool = False
    _headers: Mapping[str, str] = field(default_factory=dict)
    _begun_s: float = 0.0
    _first_s: float | None = None
    _last_s: float = 0.0
    _body_bytes: int = 0
    _tail: bytearray = field(default_factory=bytearray)

    def begun(self, headers: Mapping[str, str], end_of_stream: bool, now_s: float) -> None:
        """Note the headers."""
        self._begun_s = now_s
        status = headers.get(":status", "")
        self.status = int(status) if status.isascii() and status.isdigit() and len(status) == 3 else 0
        self._headers = headers
        self.is_complete = end_of_stream

    def passed(self, data: bytes, end_of_stream: bool, now_s: float) -> bool:
        """Note a part of the body, and return whether it is the first.

        Comments that keep a stream alive are no beginning of it.
        """
        is_first = False
        if data:
            if self._first_s is None:
                self.has_body = True
                if not is_comment(data):
                    self._first_s, is_first = now_s, True
            self._last_s = now_s
            self._body_bytes += len(data)
            tail = self._tail
            tail += data
            if len(tail) > _MOST_KEPT:
                del tail[:-TAIL_BYTES]
        if end_of_stream:
            self.is_complete = True
        return is_first

    def entry(
        self, metadata: Mapping[str, str], placed_s: float, attempts: int, now_s: float, at_s: float
    ) -> LogEntry:
        """Return what an access log would have of the exchange; `at_s` is now as a unix time.

        A response without its end is taken for one whose client has left: nothing tells it from one that the
        server broke off.
        """
        flags = set() if self.is_complete else {"DC"}
        if self._headers.get("x-envoy-overloaded"):
            flags.add("UO")  # a limit of the gateway's own: no backend was asked
        usage, error = self._usage_and_error()
        return LogEntry(
            started_at_s=at_s - (now_s - placed_s),
            duration_s=now_s - placed_s,
            status=self.status,
            attempts=attempts,
            response_flags=frozenset(flags),
            response_body_bytes=self._body_bytes,
            metadata=metadata if error is None else {**metadata, STREAM_ERROR_KEY: error},
            tags=self._times(placed_s),
            retry_after_s=self._retry_after_s(at_s),
            usage=usage,
        )

    def _usage_and_error(self) -> tuple[TokenUsage | None, str | None]:
        is_stream = self._headers.get("content-type", "").startswith("text/event-stream")
        tail = bytes(self._tail[-TAIL_BYTES:])
        return read_usage(tail), read_stream_error(tail) if is_stream else None

    def _times(self, placed_s: float) -> dict[str, str]:
        if self._first_s is None:
            return {}
        first_s, decode_s = self._first_s - placed_s, self._last_s - self._first_s
        times_s = {TTFT_TAG: first_s, DECODE_TAG: decode_s, HEADERS_TAG: self._begun_s - placed_s}
        return {tag: f"{time_s * 1e6:.0f}" for tag, time_s in times_s.items()}

    def _retry_after_s(self, at_s: float) -> float | None:
        if self.status not in OVERLOADED:
            return None
        return read_retry_after_s(self._headers.get("retry-after", ""), at_s)
