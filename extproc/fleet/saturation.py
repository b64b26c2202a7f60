"""The saturation breaker: a backend is out from its limit on, and back at its resume load. No flapping.

The limit is the configured one, or moves (`fleet.adaptive_limit`); the resume load moves with it.
"""

from dataclasses import dataclass

from extproc.fleet.adaptive_limit import AdaptiveRule

RESUME_SHARE = 0.8
"""Borrowed from the deployment that this project comes from: a backend comes back at it."""


@dataclass(frozen=True, slots=True)
class SaturationRule:
    """A backend holds at most `max_active` requests; with `adaptive` that is where its own limit begins.

    It comes back at `resume_load`, or at `resume_share` of its limit where that is None.
    """

    max_active: int = 100  # measured: beyond it the origin's TTFT was queue-bound
    resume_load: int | None = None
    adaptive: AdaptiveRule | None = None
    resume_share: float = RESUME_SHARE

    def closes_above(self, load: float, closed_above: float, max_active: int) -> float:
        """Return the load above which a backend takes no request, after its load or its limit has changed.

        It starts with `opened()`: the last load at which one more request does not exceed the limit. Once
        that is passed the backend is saturated, and the bound is the resume load until that is reached.
        """
        return self.resumes_at(max_active) if load > closed_above else self.opened(max_active)

    def opened(self, max_active: int) -> int:
        """Return the bound of a backend that is not saturated."""
        return max_active - 1

    def resumes_at(self, max_active: int) -> int:
        """Return the load at which a backend with this limit comes back."""
        if self.resume_load is not None:
            return self.resume_load
        return min(max_active - 1, int(max_active * self.resume_share))
