"""The failure breaker: a backend that fails is taken out, then probed by one request at a time.

Consecutive failures trip it; each failed probe doubles the pause before the next, up to a limit; one
success closes it, and a probe that the server is seen to work on lets traffic flow until then. The pattern is
Nygard's circuit breaker ("Release It!", 2007), with the half-open state limited to one request.
"""

from dataclasses import dataclass, field
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


ANSWERING_S = 1.0
"""Guessed: servers fail within milliseconds, so one that works on a request for this time is answering."""

EXCUSED_PER_FAILURE = 10
"""Guessed: this many failures that are likely requests' own count as one; fifty in a row are no accident."""

_CLOSED: Final[int] = 0  # traffic flows
_PAUSED: Final[int] = 1  # nothing is sent until the pause is over
_PROBING: Final[int] = 2  # one request is under way, or its outcome is
_ANSWERING: Final[int] = 3  # a probe is being answered: traffic flows, but the first failure ends that


@dataclass(slots=True, eq=False)
class Breaker:
    """One backend's breaker; the backend takes no request before `admits_at_s`."""

    _rule: BreakerRule
    admits_at_s: float = -inf
    _failed_at_s: float = -inf
    _probed_at_s: float = -inf
    _phase: int = _CLOSED
    _failures: int = 0  # in excused ones
    _pause_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._pause_s = self._rule.min_pause_s

    @property
    def is_tripped(self) -> bool:
        """Whether the backend is out, or on probation."""
        return self._phase != _CLOSED

    def has_just_failed(self, now_s: float) -> bool:
        """Return whether its last failure is so young that the next request would hardly do better."""
        return now_s - self._failed_at_s < self._rule.min_pause_s

    def begin(self, now_s: float) -> None:
        """Note that a request was sent: it is a probe where the backend is out."""
        if self._phase in (_PAUSED, _PROBING):
            if self._phase == _PAUSED or self.admits_at_s <= now_s:
                self._probed_at_s = now_s
            self._phase = _PROBING
            self.admits_at_s = inf

    def end(self, now_s: float) -> None:
        """Note that a request has ended; a probe without an outcome in time is followed by another."""
        if self._phase == _PROBING:
            self.admits_at_s = now_s + self._rule.probe_timeout_s

    def scraped(self, now_s: float, *, is_working: bool) -> None:
        """Follow a good scrape, `is_working` where the server works on requests, and some are ours.

        An answer may take minutes, and the backend is not out for all of that time: a probe that the server
        has been working on is being answered. One of which nothing is seen is followed by another.
        """
        if self._phase != _PROBING:
            return
        if is_working and now_s - self._probed_at_s >= ANSWERING_S:
            self._phase = _ANSWERING
            self.admits_at_s = -inf
        elif now_s - self._probed_at_s >= self._rule.probe_timeout_s:
            self.admits_at_s = min(self.admits_at_s, now_s)

    def succeed(self, now_s: float) -> None:
        """Note an answer. In a pause it belongs to a request from before: a reason to probe, no more."""
        if self._phase == _PAUSED:
            self.probe_soon(now_s)
        else:
            self.reset()

    def fail(self, now_s: float, *, is_excused: bool = False) -> None:
        """Note a failure, which is excused where it is likely the request's own.

        In a pause it belongs to a request from before, and does not prolong it. On probation the first one
        that is not excused ends that, and an excused one says nothing: another probe follows.
        """
        if not is_excused:
            self._failed_at_s = now_s
        if self._phase == _PAUSED:
            return
        self._failures += 1 if is_excused else EXCUSED_PER_FAILURE
        is_enough = self._failures >= EXCUSED_PER_FAILURE * self._rule.consecutive_failures
        if self._phase == _CLOSED:
            if not is_enough:
                return
        elif is_excused and not is_enough:
            self.admits_at_s = min(self.admits_at_s, now_s)
            return
        else:
            self._pause_s = min(2 * self._pause_s, self._rule.max_pause_s)
        self._phase = _PAUSED
        self._failures = 0
        self.admits_at_s = now_s + self._pause_s

    def excuse(self) -> None:
        """Take a failure back, but for what an excused one counts."""
        self._failures = max(0, self._failures - EXCUSED_PER_FAILURE + 1)

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
