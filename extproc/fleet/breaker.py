"""The failure breaker: a backend that fails is taken out, then probed by one request at a time.

Consecutive failures trip it; each failed probe doubles the pause before the next, up to a limit; one
success closes it. The pattern is Nygard's circuit breaker ("Release It!", 2007), with the half-open state
limited to one request.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from extproc.bounds import Count, Seconds
from extproc.fleet.state import BackendState


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


_CLOSED: Final = 0  # traffic flows
_PAUSED: Final = 1  # nothing is sent until the pause is over
_PROBING: Final = 2  # one request is under way, or its outcome is


class FailureBreakers:
    """One breaker per backend; when it admits the next request is kept in the backend's state."""

    def __init__(self, states: Sequence[BackendState], rule: BreakerRule) -> None:
        self._rule = rule
        self._states = states
        self._phase = [_CLOSED] * len(states)
        self._failures = [0] * len(states)
        self._pause_s = [rule.min_pause_s] * len(states)

    def is_tripped(self, slot: int) -> bool:
        """Whether the backend is out, or on probation."""
        return self._phase[slot] != _CLOSED

    def next_probe_s(self, slots: Iterable[int], now_s: float) -> float:
        """Seconds until the first of the backends may be tried again; inf where there is none."""
        return max(0.0, min((self._states[slot].admits_at_s for slot in slots), default=inf) - now_s)

    def begin(self, slot: int) -> None:
        """A request was placed: on probation, no other follows until it is known how it went."""
        if self._phase[slot] != _CLOSED:
            self._phase[slot] = _PROBING
            self._states[slot].admits_at_s = inf

    def end(self, slot: int, now_s: float) -> None:
        """A request has ended; a probe whose outcome is not reported in time is followed by another."""
        if self._phase[slot] == _PROBING:
            self._states[slot].admits_at_s = now_s + self._rule.probe_timeout_s

    def succeed(self, slot: int, now_s: float) -> None:
        """The backend answered. In a pause that was a request from before it: a reason to probe, no more."""
        if self._phase[slot] == _PAUSED:
            self.probe_soon(slot, now_s)
        else:
            self.reset(slot)

    def fail(self, slot: int, now_s: float) -> None:
        """The backend failed. In a pause that was a request from before it, which is known already."""
        if self._phase[slot] == _PAUSED:
            return
        self._failures[slot] += 1
        if self._phase[slot] == _PROBING:
            self._pause_s[slot] = min(2 * self._pause_s[slot], self._rule.max_pause_s)
        elif self._failures[slot] < self._rule.consecutive_failures:
            return
        self._phase[slot] = _PAUSED
        self._states[slot].admits_at_s = now_s + self._pause_s[slot]

    def probe_soon(self, slot: int, now_s: float) -> None:
        """The backend shows signs of life: the next request may try it."""
        if self._phase[slot] == _PAUSED:
            state = self._states[slot]
            state.admits_at_s = min(state.admits_at_s, now_s)

    def reset(self, slot: int) -> None:
        """Close the breaker and forget its past."""
        self._phase[slot] = _CLOSED
        self._failures[slot] = 0
        self._pause_s[slot] = self._rule.min_pause_s
        self._states[slot].admits_at_s = -inf
