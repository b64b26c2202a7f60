"""The saturation breaker: a backend is out from `max_active` on, and back at `resume_load`. No flapping."""

from dataclasses import dataclass
from typing import overload

from extproc.fleet.load import Bools, Floats


@dataclass(frozen=True, slots=True)
class SaturationRule:
    """`max_active` is the most requests a backend may hold, `resume_load` where it comes back."""

    max_active: float
    resume_load: float

    @overload
    def is_saturated(self, load: float, was_saturated: bool) -> bool: ...

    @overload
    def is_saturated(self, load: Floats, was_saturated: Bools) -> Bools: ...

    def is_saturated(self, load: float | Floats, was_saturated: bool | Bools) -> bool | Bools:
        """Whether one more request would exceed the limit, or a saturated backend has yet to drain."""
        return (load + 1 > self.max_active) | (was_saturated & (load > self.resume_load))
