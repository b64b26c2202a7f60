"""The saturation breaker: a backend is out from `max_active` on, and back at `resume_load`. No flapping."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SaturationRule:
    """`max_active` is the most requests a backend may hold, `resume_load` where it comes back."""

    max_active: float
    resume_load: float

    def closes_above(self, load: float, closed_above: float) -> float:
        """The load above which a backend takes no request, after its load has become `load`.

        It starts with `opened()`: the last load at which one more request does not exceed the limit. Once
        that is passed the backend is saturated, and the bound is the resume load until that is reached.
        """
        return self.resume_load if load > closed_above else self.opened()

    def opened(self) -> float:
        """The bound of a backend that is not saturated."""
        return self.max_active - 1
