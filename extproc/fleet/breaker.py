"""The failure breaker: a backend that fails is taken out, then probed by one request at a time.

Consecutive failures trip it; each failed probe doubles the pause before the next, up to a limit; one
success closes it. The pattern is Nygard's circuit breaker ("Release It!", 2007), with the half-open state
limited to one request.
"""

from dataclasses import dataclass
from math import inf
from typing import Final

from extproc.fleet.bounds import Count, Seconds


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When a backend is taken out because it fails, and how it is probed."""

    consecutive_failures: Count = 5  # borrowed: Envoy's outlier detection default
    min_pause_s: Seconds = 1.0  # guessed
    max_pause_s: Seconds = 30.0  # borrowed: Envoy's base ejection time
    probe_timeout_s: Seconds = 5.0  # guessed: how long a finished probe's outcome is waited for

    def __post_init__(self) -> None:
        if self.min_pause_s > self.max_pause_s:
            raise ValueError("min_pause_s must not be larger than max_pause_s")


_CLOSED: Final[int] = 0  # traffic flows
_PAUSED: Final[int] = 1  # nothing is sent until the pause is over
_PROBING: Final[int] = 2  # one request is under way, or its outcome is


class Breaker:
    """One backend's breaker; the backend takes no request before `admits_at_s`."""

    __slots__ = ("_failures", "_pause_s", "_phase", "_rule", "admits_at_s")

    def __init__(self, rule: BreakerRule) -> None:
        self.admits_at_s = -inf
        self._rule = rule
        self._phase = _CLOSED
        self._failures = 0
        self._pause_s = rule.min_pause_s

    @property
    def is_tripped(self) -> bool:
        """Whether the backend is out, or on probation."""
        return self._phase != _CLOSED

    def begin(self) -> None:
        """Note that a request was sent: on probation no other follows until its outcome is known."""
        if self._phase != _CLOSED:
            self._phase = _PROBING
            self.admits_at_s = inf

    def end(self, now_s: float) -> None:
        """Note that a request has ended; a probe without an outcome in time is followed by another."""
        if self._phase == _PROBING:
            self.admits_at_s = now_s + self._rule.probe_timeout_s

    def succeed(self, now_s: float) -> None:
        """Note an answer. In a pause it belongs to a request from before: a reason to probe, no more."""
        if self._phase == _PAUSED:
            self.probe_soon(now_s)
        else:
            self.reset()

    def fail(self, now_s: float) -> None:
        """Note a failure. In a pause it belongs to a request from before, and changes nothing."""
        if self._phase == _PAUSED:
            return
        self._failures += 1
        if self._phase == _PROBING:
            self._pause_s = min(2 * self._pause_s, self._rule.max_pause_s)
        elif self._failures < self._rule.consecutive_failures:
            return
        self._phase = _PAUSED
        self.admits_at_s = now_s + self._pause_s

    def probe_soon(self, now_s: float) -> None:
        """Let the next request try the backend, which shows signs of life."""
        if self._phase == _PAUSED:
            self.admits_at_s = min(self.admits_at_s, now_s)

    def reset(self) -> None:
        """Close the breaker and forget its past."""
        self._phase = _CLOSED
        self._failures = 0
        self._pause_s = self._rule.min_pause_s
        self.admits_at_s = -inf
