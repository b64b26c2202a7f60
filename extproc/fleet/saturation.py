"""The saturation breaker: a backend is out from its limit on, and back at its resume load. No flapping.

The limit is the configured one, or moves (`fleet.adaptive_limit`); the resume load moves with it.
"""

from dataclasses import dataclass

from extproc.fleet.adaptive_limit import AdaptiveRule


@dataclass(frozen=True, slots=True)
class SaturationRule:
    """`max_active` is the most requests a backend may hold, `resume_load` where it comes back.

    With `adaptive` they are where every backend's own limit begins.
    """

    max_active: int
    resume_load: int
    adaptive: AdaptiveRule | None = None

    def closes_above(self, load: float, closed_above: float, max_active: int) -> float:
        """The load above which a backend takes no request, after its load or its limit has changed.

        It starts with `opened()`: the last load at which one more request does not exceed the limit. Once
        that is passed the backend is saturated, and the bound is the resume load until that is reached.
        """
        return self.resumes_at(max_active) if load > closed_above else self.opened(max_active)

    def opened(self, max_active: int) -> int:
        """The bound of a backend that is not saturated."""
        return max_active - 1

    def resumes_at(self, max_active: int) -> int:
        """The load at which a backend with this limit comes back."""
        if self.adaptive is None:
            return self.resume_load
        return min(max_active - 1, int(max_active * self.adaptive.resume_share))
